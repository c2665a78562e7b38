"""Devices by the names that configurations use."""

import torch

from dvae.errors import UserError

__all__ = ["resolve_device"]


def resolve_device(name: str) -> torch.device:
    """The device of a name: auto, cpu or cuda.

    Raises:
        UserError: If it is not available.
    """
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise UserError("device: expected cpu or auto on this machine, found cuda without a GPU")
    return torch.device("cuda" if available and name != "cpu" else "cpu")
