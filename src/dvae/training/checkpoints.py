"""Checkpoints: written whole or not at all, and read as tensors and plain values only."""

import io
import pickle
import struct
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins import TorchCheckpointIO
from torch import Tensor, nn
from torch.optim import Optimizer

from dvae.errors import UserError
from dvae.files import write_file
from dvae.training.module import TaskModule

__all__ = ["CheckpointFiles", "check_resumable", "check_weights", "load_checkpoint"]

FORMAT = 2
"""Version of the content of checkpoints; those from before it was counted have none."""
_LOADER = {"done": 0, "size": 1, "batches": 1}
"""What the state of a `dvae.data.loader.BatchGroups` looks like."""
_MOST = 2**53
"""No run counts as far."""
_MALFORMED = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)
"""What reading a broken file can raise."""


class CheckpointFiles(TorchCheckpointIO):
    """Lightning's way to files: a checkpoint takes the place of the last one when it is whole."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Writes a checkpoint.

        Raises:
            OSError: If it cannot be written; what lay there before is untouched.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        # Into memory first: what a full disk would interrupt is then a plain write.
        content = io.BytesIO()
        torch.save({**checkpoint, "format": FORMAT}, content)
        with write_file(path, "wb") as file:
            file.write(content.getbuffer())

    def load_checkpoint(
        self, path: str | Path, map_location: Any = "cpu", weights_only: bool | None = True
    ) -> dict[str, Any]:
        """Reads a checkpoint, as `load_checkpoint` of this module does."""
        # What is checked to fit needs none of Lightning's migrations, and names no version to them.
        return load_checkpoint(path) | {"pytorch-lightning_version": pl.__version__}


def load_checkpoint(path: str | Path, key: str = "checkpoint") -> dict[str, Any]:
    """Reads a checkpoint without running any code that it may hold.

    Args:
        path: The file.
        key: What to call it in errors.

    Returns:
        Its content, with tensors on the CPU.

    Raises:
        UserError: If there is no such file, or it is no checkpoint of this program, or holds
            numbers that are not finite.
    """
    try:
        _check_archive(path)
        with warnings.catch_warnings():
            # What torch remarks on files that it then refuses.
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except _MALFORMED as error:
        raise UserError(
            f"{key}: expected a checkpoint of tensors and plain values, found {path} "
            f"({type(error).__name__} in reading it)"
        ) from error
    if not isinstance(content, dict) or not {"config", "state_dict"} <= content.keys():
        raise UserError(f"{key}: expected a checkpoint written by dvae, found {path}")
    version = content.get("format", 0)
    if not isinstance(version, int) or version > FORMAT:
        raise UserError(
            f"{key}: expected a checkpoint of format {FORMAT} or before, found {version} in "
            f"{path}: it comes from a newer version of dvae"
        )
    state = content["state_dict"]
    if not isinstance(state, dict) or not all(_is_plain(value) for value in state.values()):
        raise UserError(f"{key}: expected plain tensors as weights in {path}, found others")
    for name, value in state.items():
        if not value.isfinite().all():
            raise UserError(f"{key}: expected finite weights in {path}, found others in {name}")
    return content


def _check_archive(path: str | Path) -> None:
    """Refuses an archive that is damaged, or that could hold more than its size."""
    with zipfile.ZipFile(path) as archive:
        if any(item.compress_type != zipfile.ZIP_STORED for item in archive.infolist()):
            raise ValueError("compressed")
        # Torch reads the tensors of a damaged archive as if nothing were wrong.
        if (damaged := archive.testzip()) is not None:
            raise ValueError(f"wrong checksum of {damaged}")


def _is_plain(value: Any) -> bool:
    """Whether something is a tensor that is no larger than what the file holds of it."""
    return (
        type(value) is Tensor
        and value.layout == torch.strided
        and not value.is_quantized
        and value.numel() * value.element_size() <= value.untyped_storage().nbytes()
    )


def check_weights(
    state: Mapping[str, Tensor], module: nn.Module, path: str | Path, key: str
) -> None:
    """Refuses weights of other names, shapes or types than those of a module.

    Args:
        state: The weights.
        module: The module that they are meant for.
        path: The file that they come from, for errors.
        key: What to call the file in errors.

    Raises:
        UserError: If they do not fit.
    """
    expected = module.state_dict()
    for name in sorted(expected.keys() ^ state.keys(), key=str):
        what = "none" if name in expected else "one that has no place in the model"
        raise UserError(
            f"{key}: expected weights that fit the model, found {what}: {name} in {path}"
        )
    for name, own in expected.items():
        found = state[name]
        if own.shape != found.shape or own.is_floating_point() != found.is_floating_point():
            raise UserError(
                f"{key}: expected {name} of shape {tuple(own.shape)} in {path}, as the "
                f"configuration says, found {tuple(found.shape)} ({found.dtype})"
            )


def check_resumable(
    content: Mapping[str, Any], path: str | Path, trainer: pl.Trainer, module: TaskModule
) -> None:
    """Refuses to go on from a checkpoint of another kind of run, before anything is written.

    Args:
        content: What `load_checkpoint` has read.
        path: The file, for errors.
        trainer: The trainer of the run.
        module: Its module.

    Raises:
        UserError: If model, optimizer or the state of the loops do not fit.
    """
    check_weights(content["state_dict"], module, path, "resume")
    try:
        stored, own = content["config"]["optimizer"]["name"], module.config["optimizer"]["name"]
        if stored != own:
            raise UserError(
                f"optimizer: expected {stored}, as in the checkpoint {path}, found {own}"
            )
        _check_optimizer(module.configure_optimizers(), content["optimizer_states"])
        loops = dict(content["loops"]["fit_loop"])
        _check_alike([_LOADER] * len(loaders := _loaders(loops.pop("state_dict"))), loaders)
        own_loops = trainer.fit_loop.state_dict()
        own_loops.pop("state_dict")
        _check_alike(own_loops, loops)
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if (found := content["callbacks"].get(callback.state_key)) is not None:
                _check_alike(callback.state_dict(), found)
        counts = {"global_step": content["global_step"], "skipped": content.get("skipped", 0)}
        _check_alike(dict.fromkeys(counts, 0), counts, "counts")
        if content["lr_schedulers"] != []:
            raise ValueError("lr_schedulers")
    except _MALFORMED as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"resume: expected the state of such a run in {path}, found another ({error})"
        ) from error


def _loaders(state: Any) -> Any:
    """States of the data loaders; none in checkpoints from before they had any."""
    return state["combined_loader"] if state else []


def _check_optimizer(optimizer: Optimizer | None, states: Any) -> None:
    """Refuses states of other parameters; the optimizer is a fresh one, to be thrown away."""
    if optimizer is None or len(states) != 1:
        raise ValueError("optimizer_states")
    optimizer.load_state_dict(states[0])
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            fits = value is None or (_is_plain(value) and value.shape in ((), parameter.shape))
            if not fits or (value is not None and not value.isfinite().all()):
                raise ValueError(f"optimizer_states: {name}")


def _check_alike(expected: Any, found: Any, key: str = "loops") -> None:
    """Refuses a nested structure with other keys or kinds of values; null stands for any number."""
    if isinstance(expected, dict):
        if not isinstance(found, dict) or expected.keys() != found.keys():
            raise ValueError(key)
        for name, value in expected.items():
            _check_alike(value, found[name], f"{key}.{name}")
    elif isinstance(expected, list):
        if not isinstance(found, list) or len(expected) != len(found):
            raise ValueError(key)
        for one, other in zip(expected, found, strict=True):
            _check_alike(one, other, key)
    elif isinstance(expected, Tensor):
        if not _is_plain(found) or expected.shape != found.shape:
            raise ValueError(key)
    elif expected is None or found is None:
        if not isinstance(found if expected is None else expected, int | float | None):
            raise ValueError(key)
    elif type(found) is not type(expected) or (isinstance(found, int) and not 0 <= found < _MOST):
        raise ValueError(key)
