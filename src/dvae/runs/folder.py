"""Trains in the folder of a run: from the start, or from the last checkpoint.

`status.json` holds the state of a run, `metrics.json` its result and `.hydra/overrides.yaml` its
overrides. Nothing here imports torch, so a command for a finished run returns at once.
"""

import gc
import math
import os
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from dvae.errors import DivergedError, OtherRunError, PrunedError, UserError
from dvae.files import lock_folder, remove_parts, write_json
from dvae.runs.alive import identity
from dvae.runs.files import flatten, read_json, read_yaml
from dvae.tasks import find_task, parse_run
from dvae.training.config import RunConfig
from dvae.training.migrations import migrate

__all__ = ["FINAL", "is_first_process", "record", "run_in_folder"]

FINAL = ("finished", "diverged", "pruned")
"""States of runs that are not trained again."""
_WITHOUT_EFFECT = ("paths.", "resume", "trainer.progress_bar", "trainer.save_every")
"""Settings that do not change the result; a resumed run may have others."""
_RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID")


def is_first_process() -> bool:
    """Whether this process, among those of one run, writes the files."""
    return all(os.environ.get(rank, "0") == "0" for rank in _RANKS)


def run_in_folder(
    config: RunConfig, train: Callable[[RunConfig], dict[str, float]]
) -> float | None:
    """Trains in the run's folder: from the start, or from the last checkpoint in it.

    A run that has finished, diverged or been pruned is not repeated.

    Args:
        config: The configuration; its `paths.output_dir` is the folder.
        train: Trains on a configuration and returns metrics.

    Returns:
        The metric that the task compares runs by; NaN for a run that did not finish; None without
        a validation split.

    Raises:
        OtherRunError: If the folder belongs to a run with other settings.
    """
    folder = Path(config.paths.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    with lock_folder(folder) if is_first_process() else nullcontext():
        return _run_in_folder(folder, config, train)


def _run_in_folder(
    folder: Path, config: RunConfig, train: Callable[[RunConfig], dict[str, float]]
) -> float | None:
    if is_first_process():
        remove_parts(folder)
    monitor = find_task(config.task).selected_by
    status = read_json(folder / "status.json")
    changed = _changed_settings(folder, config) if status else ""
    # An explicit `resume=` may change settings, such as the number of epochs.
    if changed and config.resume is None:
        raise OtherRunError(f"{changed}; choose another folder")
    if status.get("state") in FINAL and not changed:
        metrics = read_json(folder / "metrics.json")
        print(f"{folder}: already {status['state']}", flush=True)
        return metrics.get(monitor) if status["state"] == "finished" else math.nan
    last = folder / "checkpoints" / "last.ckpt"
    if config.resume is None and status and last.is_file():
        config = config.model_copy(update={"resume": str(last)})
    start, before = time.perf_counter(), status.get("seconds", 0.0)
    configuration = _modified(folder / "config.yaml")
    record(folder, seconds=before)
    # In a sweep, reference cycles would keep the data of many earlier runs in memory.
    gc.collect()
    try:
        metrics = train(config)
    except BaseException as error:
        record(folder, error, seconds=before + time.perf_counter() - start)
        # Training writes the configuration when it starts.
        untouched = _modified(folder / "config.yaml") == configuration
        keeps = type(error) is UserError or (status.get("state") in FINAL and untouched)
        if status and keeps and is_first_process():
            # The command ended before it changed anything: keep the run's state.
            write_json(folder / "status.json", status)
        raise
    record(folder, state="finished", seconds=before + time.perf_counter() - start)
    return metrics.get(monitor)


def _modified(path: Path) -> int | None:
    """When a file was written, in nanoseconds; None if it does not exist."""
    return path.stat().st_mtime_ns if path.is_file() else None


def record(
    folder: Path,
    error: BaseException | None = None,
    *,
    state: str = "running",
    seconds: float | None = None,
) -> str:
    """Writes the state of a run, which follows from the error if there is one.

    Args:
        folder: The run's folder.
        error: The error that ended the run.
        state: The state if there is no error.
        seconds: Duration of the run; by default the one already written.

    Returns:
        The error in one line; empty if there is none.
    """
    reason = _reason(error)
    if not is_first_process():
        return reason
    if error is not None:
        state = next(
            (name for kind, name in _STATES.items() if isinstance(error, kind)), "interrupted"
        )
    before = read_json(folder / "status.json").get("seconds", 0.0)
    content = {
        "state": state,
        "reason": reason,
        "seconds": before if seconds is None else round(seconds, 1),
        **identity(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "status.json", content)
    return reason


_STATES: dict[type[BaseException], str] = {
    DivergedError: "diverged",
    PrunedError: "pruned",
    Exception: "failed",
}


def _reason(error: BaseException | None) -> str:
    if error is None:
        return ""
    lines = str(error).splitlines() or [""]
    kind = "" if isinstance(error, ValueError | PrunedError) else f"{type(error).__name__}: "
    return (kind + lines[0]).strip(": ")


def _changed_settings(folder: Path, config: RunConfig) -> str:
    """A clause on the first setting that differs from the run in the folder; empty if none does."""
    path = folder / "config.yaml"
    if not path.is_file():
        return ""
    content = read_yaml(path)
    if not isinstance(content, dict) or not content:
        raise UserError(f"{path}: expected the configuration of a run, found other content")
    old, new = flatten(_complete(content)), flatten(config.model_dump())
    for key in sorted(old.keys() | new.keys()):
        if not key.startswith(_WITHOUT_EFFECT) and old.get(key) != new.get(key):
            return (
                f"{key}: expected {old.get(key)}, as in the run in {folder}, found {new.get(key)}"
            )
    return ""


def _complete(content: dict[str, Any]) -> dict[str, Any]:
    """Adds the options that did not exist when the configuration was written."""
    try:
        return parse_run(migrate(content)).model_dump()
    except UserError:
        return content
