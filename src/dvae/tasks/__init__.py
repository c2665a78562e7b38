"""What can be trained: one folder a task, whose name its name in configurations is."""

from importlib import import_module
from pkgutil import iter_modules

from dvae.errors import UserError, nearest
from dvae.tasks.base import Task

__all__ = ["TASKS", "find_task"]

TASKS = sorted(module.name for module in iter_modules(__path__) if module.ispkg)
"""The names of the tasks."""


def find_task(name: object) -> Task:
    """The task of a name.

    Raises:
        UserError: If there is none.
    """
    if name not in TASKS:
        raise UserError(
            f"task: expected one of {', '.join(TASKS)}, found {name!r}{nearest(str(name), TASKS)}"
        )
    task: Task = import_module(f"{__name__}.{name}.task").TASK
    return task
