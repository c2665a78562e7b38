"""Safe loading of checkpoints: tensors and plain values only."""

import pickle
from pathlib import Path
from typing import Any

import torch

from dvae.build import build_vae
from dvae.config import parse
from dvae.errors import UserError
from dvae.modules.vae import VAEModule
from dvae.schemas import ModelConfig

__all__ = ["load_checkpoint", "load_module"]


def load_checkpoint(path: str | Path, key: str = "checkpoint") -> dict[str, Any]:
    """Reads a checkpoint without running any code that it may hold.

    Args:
        path: The file.
        key: What to call it in errors.

    Returns:
        Its content, with tensors on the CPU.

    Raises:
        UserError: If there is no such file, or it is no checkpoint of this program.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{key}: expected a checkpoint of tensors and plain values, found {path} "
            f"({type(error).__name__} in reading it)"
        ) from error
    if not isinstance(content, dict) or not {"config", "state_dict"} <= content.keys():
        raise UserError(f"{key}: expected a checkpoint written by dvae, found {path}")
    return content


def load_module(path: str | Path) -> tuple[VAEModule, ModelConfig]:
    """Builds the model of a checkpoint, in evaluation mode on the CPU.

    Args:
        path: The checkpoint.

    Returns:
        The module with its weights, and what it was trained with: model, data and seed.

    Raises:
        UserError: If the file cannot be read, or its weights do not fit its configuration.
    """
    content = load_checkpoint(path)
    try:
        stored = dict(content["config"])
        config = parse(
            ModelConfig, {key: stored[key] for key in ModelConfig.model_fields if key in stored}
        )
    except (UserError, TypeError, ValueError) as error:
        raise UserError(f"checkpoint: {path} holds another configuration: {error}") from error
    module = VAEModule(build_vae(config), config=config.model_dump())
    try:
        module.load_state_dict(content["state_dict"])
    except (RuntimeError, TypeError, AttributeError) as error:
        raise UserError(
            f"checkpoint: expected weights that fit the configuration in {path}, found others: "
            f"{str(error).splitlines()[-1].strip()}"
        ) from error
    return module.eval(), config
