"""Checkpoints: written atomically, and read as tensors and plain values only."""

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
from dvae.training.averaging import TRAINED
from dvae.training.migrations import migrate
from dvae.training.module import TaskModule

__all__ = ["CheckpointFiles", "check_resumable", "check_weights", "load_checkpoint"]

FORMAT = 2
"""Version of the content of checkpoints; the oldest checkpoints name none."""
_LOADER = {"done": 0, "size": 1, "batches": 1}
"""Keys and types in the state of a `dvae.data.loader.BatchGroups`."""
_LIMIT = 2**53
"""Counters in a checkpoint must be smaller."""
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
"""Errors that reading a broken file can raise."""


class CheckpointFiles(TorchCheckpointIO):
    """Checkpoint files for Lightning: a new checkpoint replaces the old one once it is complete."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Writes a checkpoint.

        Raises:
            OSError: If it cannot be written; the old file then stays as it was.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        # Serialise in memory first, so that a full disk only fails a plain write.
        content = io.BytesIO()
        torch.save({**checkpoint, "format": FORMAT}, content)
        with write_file(path, "wb") as file:
            file.write(content.getbuffer())

    def load_checkpoint(
        self, path: str | Path, map_location: Any = "cpu", weights_only: bool | None = True
    ) -> dict[str, Any]:
        """Reads a checkpoint with this module's `load_checkpoint`."""
        # For its own version, Lightning migrates nothing; `check_resumable` checks the content.
        return load_checkpoint(path) | {"pytorch-lightning_version": pl.__version__}


def load_checkpoint(path: str | Path, key: str = "checkpoint") -> dict[str, Any]:
    """Reads a checkpoint without running code from the file.

    Args:
        path: The file.
        key: The configuration key that errors name.

    Returns:
        Its content, with tensors on the CPU.

    Raises:
        UserError: If the file does not exist, is not a checkpoint of this program, or holds weights
            that are not finite.
    """
    try:
        _check_archive(path)
        with warnings.catch_warnings():
            # Torch warns about some files before it refuses them.
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except _MALFORMED as error:
        raise UserError(
            f"{key}: expected a checkpoint of tensors and plain values, found {path} "
            f"({type(error).__name__} while reading it)"
        ) from error
    if not isinstance(content, dict) or not {"config", "state_dict"} <= content.keys():
        raise UserError(f"{key}: expected a checkpoint written by dvae, found {path}")
    version = content.get("format", 0)
    if not isinstance(version, int) or version > FORMAT:
        raise UserError(
            f"{key}: expected a checkpoint of format {FORMAT} or older, found {version} in "
            f"{path}; a newer version of dvae can read it"
        )
    for state in (content["state_dict"], content.get(TRAINED, {})):
        if not isinstance(state, dict) or not all(_is_plain(value) for value in state.values()):
            raise UserError(f"{key}: expected plain tensors as weights, found others in {path}")
        for name, value in state.items():
            if not value.isfinite().all():
                raise UserError(
                    f"{key}: expected finite weights, found NaN or inf in {name} in {path}"
                )
    return content


def _check_archive(path: str | Path) -> None:
    """Refuses an archive that is damaged, or compressed and so larger in memory than on disk."""
    with zipfile.ZipFile(path) as archive:
        if any(item.compress_type != zipfile.ZIP_STORED for item in archive.infolist()):
            raise ValueError("compressed")
        # Torch does not check the checksums.
        if (damaged := archive.testzip()) is not None:
            raise ValueError(f"wrong checksum of {damaged}")


def _is_plain(value: Any) -> bool:
    """Whether a value is a dense tensor that is no larger than its storage."""
    return (
        type(value) is Tensor
        and value.layout == torch.strided
        and not value.is_quantized
        and value.numel() * value.element_size() <= value.untyped_storage().nbytes()
    )


def check_weights(
    state: Mapping[str, Tensor], module: nn.Module, path: str | Path, key: str
) -> None:
    """Checks that weights have the names, shapes and types of a module's weights.

    Args:
        state: The weights.
        module: The module to load them into.
        path: Their file, for errors.
        key: The configuration key that errors name.

    Raises:
        UserError: If they do not fit.
    """
    expected = module.state_dict()
    for name in sorted(expected.keys() ^ state.keys(), key=str):
        missing = f"expected the model's weight {name}, found none"
        unknown = f"expected only weights of the model, found {name}"
        raise UserError(f"{key}: {missing if name in expected else unknown} in {path}")
    for name, own in expected.items():
        found = state[name]
        if own.shape != found.shape or own.is_floating_point() != found.is_floating_point():
            raise UserError(
                f"{key}: expected {name} of shape {tuple(own.shape)} in {path}, as the "
                f"configuration says, found {tuple(found.shape)} ({found.dtype})"
            )


def check_resumable(
    content: Mapping[str, Any],
    path: str | Path,
    trainer: pl.Trainer,
    module: TaskModule,
    total_steps: int,
) -> None:
    """Checks that a run can resume from a checkpoint, before anything is written.

    Args:
        content: The content that `load_checkpoint` returned.
        path: The file, for errors.
        trainer: The trainer of the run.
        module: The module of the run.
        total_steps: The steps of the whole run.

    Raises:
        UserError: If the model, the optimizer or the state of the loops does not fit, or if the run
            would end before the checkpoint.
    """
    try:
        _check_members(migrate(content["config"]), module.config, path)
        check_weights(content["state_dict"], module, path, "resume")
        check_weights({**content["state_dict"], **content.get(TRAINED, {})}, module, path, "resume")
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
        _check_length(counts["global_step"], loops, trainer.max_epochs, total_steps, path)
    except _MALFORMED as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"resume: expected training state that fits this run, found other state in {path} "
            f"({error})"
        ) from error


def _check_members(stored: Mapping[str, Any], own: Mapping[str, Any], path: str | Path) -> None:
    """Raises if a run has another kind of weights, or of optimizer, than its checkpoint."""
    expected = _members(stored)
    for key, found in _members(own).items():
        if found != expected.get(key, found):
            raise UserError(
                f"{key}: expected {expected[key]}, as in the checkpoint {path}, found {found}"
            )


def _members(config: Mapping[str, Any]) -> dict[str, str]:
    """What decides which weights and which states of an optimizer there are."""
    groups = {key: config[key]["name"] for key in ("model", "prior", "optimizer") if key in config}
    return groups | ({"logits": config["logits"]} if "logits" in config else {})


def _check_length(
    step: int, loops: Any, max_epochs: int | None, total_steps: int, path: str | Path
) -> None:
    """Raises if a run is shorter than its checkpoint, or if its schedules have ended there."""
    done, epochs = loops["epoch_progress"]["current"]["processed"], max_epochs or 0
    if done > epochs:
        raise UserError(
            f"trainer.max_epochs: expected at least {done}, the epochs in the checkpoint {path}, "
            f"found {epochs}"
        )
    if step > total_steps or (step == total_steps and done < epochs):
        raise UserError(
            f"trainer.max_epochs: expected a run of more than {step:,} steps, those in the "
            f"checkpoint {path}, found {total_steps:,} in {epochs} epochs"
        )


def _loaders(state: Any) -> Any:
    """States of the data loaders; the oldest checkpoints have none."""
    return state["combined_loader"] if state else []


def _check_optimizer(optimizer: Optimizer | None, states: Any) -> None:
    """Raises if states do not fit the parameters; loads them into the optimizer to find out."""
    if optimizer is None or len(states) != 1:
        raise ValueError("optimizer_states")
    optimizer.load_state_dict(states[0])
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            fits = value is None or (_is_plain(value) and value.shape in ((), parameter.shape))
            if not fits or (value is not None and not value.isfinite().all()):
                raise ValueError(f"optimizer_states: {name}")


def _check_alike(expected: Any, found: Any, key: str = "loops") -> None:
    """Raises if nested values have other keys or types than expected; None matches any number."""
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
    elif type(found) is not type(expected) or (isinstance(found, int) and not 0 <= found < _LIMIT):
        raise ValueError(key)
