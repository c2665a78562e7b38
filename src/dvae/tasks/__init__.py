"""The tasks: one folder each, whose name is the task's name in configurations."""

from importlib import import_module
from pkgutil import extend_path, iter_modules
from typing import Any

from dvae.errors import UserError, nearest
from dvae.options import parse
from dvae.tasks.base import Task
from dvae.training.config import RunConfig

__all__ = ["TASKS", "find_task", "parse_run"]

__path__ = extend_path(__path__, __name__)

TASKS = sorted(module.name for module in iter_modules(__path__) if module.ispkg)
"""The names of the tasks."""


def find_task(name: object) -> Task[Any, Any, Any, Any]:
    """Finds a task by its name.

    Raises:
        UserError: If no task has this name.
    """
    if name not in TASKS:
        raise UserError(
            f"task: expected one of {', '.join(TASKS)}, found {name!r}{nearest(str(name), TASKS)}"
        )
    task: Task[Any, Any, Any, Any] = import_module(f"{__name__}.{name}.task").TASK
    return task


def parse_run(values: Any) -> RunConfig:
    """Checks the configuration of a run against the schema of its task.

    Raises:
        UserError: One line that names each wrong key, what was expected and what was found.
    """
    if not isinstance(values, dict):
        raise UserError(f"configuration: expected keys and values, found {values!r}")
    config: RunConfig = parse(find_task(values.get("task")).config, values)
    return config
