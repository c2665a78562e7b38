"""Loading a model from a checkpoint."""

from pathlib import Path

import torch

from dvae.errors import UserError
from dvae.options import parse
from dvae.tasks import find_task
from dvae.training.checkpoints import check_weights, load_checkpoint
from dvae.training.config import StoredConfig
from dvae.training.migrations import migrate
from dvae.training.module import TaskModule

__all__ = ["load_module"]


def load_module(path: str | Path) -> tuple[TaskModule, StoredConfig]:
    """Loads the model of a checkpoint, in evaluation mode on the CPU.

    Args:
        path: The checkpoint.

    Returns:
        The module with its weights, and the `stored` part of the configuration that it was trained
        with.

    Raises:
        UserError: If the file cannot be read, or its weights do not fit its configuration.
    """
    content = load_checkpoint(path)
    try:
        values = migrate(content["config"])
        task = find_task(values["task"])
        fields = task.stored.model_fields
        config = parse(task.stored, {key: values[key] for key in fields if key in values})
    except (UserError, TypeError, ValueError) as error:
        raise UserError(
            f"checkpoint: expected a valid configuration, found another in {path} ({error})"
        ) from error
    # Compare shapes on the meta device first: no memory is allocated for weights that do not fit.
    try:
        with torch.device("meta"):
            expected = task.restore(config)
    except (RuntimeError, TypeError) as error:
        raise UserError(
            f"checkpoint: expected sizes that a model can have, found others in {path}"
        ) from error
    check_weights(content["state_dict"], expected, path, "checkpoint")
    module = task.restore(config)
    module.load_state_dict(content["state_dict"])
    return module.eval(), config
