"""What a run leaves in its folder, how it goes on from it, and how others read it.

`status.json` holds the state of a run, `metrics.json` its result, and `.hydra/overrides.yaml` what
it was started with. Nothing here imports torch: a finished run answers at once.
"""

import csv
import json
import math
import os
import socket
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from dvae.commands.schemas import RunConfig
from dvae.errors import DivergedError, OtherRunError, PrunedError, UserError
from dvae.files import lock_folder, remove_parts, write_file, write_json
from dvae.tasks import find_task

__all__ = [
    "FINAL",
    "Run",
    "find_runs",
    "is_first_process",
    "overrides_of",
    "record",
    "run_in_folder",
    "write_csv",
]

FINAL = ("finished", "diverged", "pruned")
"""States that starting again does not change."""
_FREE = ("paths.", "resume", "trainer.progress_bar", "trainer.save_every")
"""Settings that change no number."""
_RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID")


@dataclass(frozen=True)
class Run:
    """A run as its folder tells it.

    Attributes:
        folder: Where it lies.
        overrides: Key → value, as text, of what was given on the command line, but for the seed.
        seed: Its seed.
        state: finished, diverged, pruned, failed, interrupted or running.
        reason: Why it did not finish; empty where it did.
        seconds: Time of training and test, over all its starts that ended in order.
        metrics: Its metrics; empty where it did not finish.
        selected_by: The metric that runs of its task are compared by.
    """

    folder: Path
    overrides: dict[str, str]
    seed: int
    state: str
    reason: str
    seconds: float
    metrics: dict[str, float]
    selected_by: str


def is_first_process() -> bool:
    """Whether this is the process, among those of one run, that writes its files."""
    return all(os.environ.get(rank, "0") == "0" for rank in _RANKS)


def run_in_folder(
    config: RunConfig, train: Callable[[RunConfig], dict[str, float]]
) -> float | None:
    """Trains in the run's folder: from the start, or on from the last checkpoint in it.

    A run that has come to an end is not repeated.

    Args:
        config: The configuration; its `paths.output_dir` is the folder.
        train: Trains on a configuration and returns metrics.

    Returns:
        The metric that runs of the task are compared by, NaN for a run that did not finish, None
        without a validation split.

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
    status = _read_json(folder / "status.json")
    changed = _changed_settings(folder, config) if status else ""
    # Who asks for it may go on with other settings, such as more epochs.
    if changed and config.resume is None:
        raise OtherRunError(f"{changed}; choose another folder")
    if status.get("state") in FINAL and not changed:
        metrics = _read_json(folder / "metrics.json")
        print(f"{folder}: {status['state']} before", flush=True)
        return metrics.get(monitor) if status["state"] == "finished" else math.nan
    last = folder / "checkpoints" / "last.ckpt"
    if config.resume is None and status and last.is_file():
        config = config.model_copy(update={"resume": str(last)})
    start, before = time.perf_counter(), status.get("seconds", 0.0)
    record(folder, seconds=before)
    try:
        metrics = train(config)
    except BaseException as error:
        record(folder, error, seconds=before + time.perf_counter() - start)
        if status and type(error) is UserError and is_first_process():
            # Nothing has been done: the run is what it was.
            write_json(folder / "status.json", status)
        raise
    record(folder, state="finished", seconds=before + time.perf_counter() - start)
    return metrics.get(monitor)


def record(
    folder: Path,
    error: BaseException | None = None,
    *,
    state: str = "running",
    seconds: float | None = None,
) -> str:
    """Writes the state of a run; what ended it decides on the state.

    Args:
        folder: The run's folder.
        error: What ended it.
        state: The state where there is no error.
        seconds: Time that it took; what was written before by default.

    Returns:
        Why it ended, in one line; empty where there is no error.
    """
    reason = _reason(error)
    if not is_first_process():
        return reason
    if error is not None:
        state = next(
            (name for kind, name in _STATES.items() if isinstance(error, kind)), "interrupted"
        )
    before = _read_json(folder / "status.json").get("seconds", 0.0)
    content = {
        "state": state,
        "reason": reason,
        "seconds": before if seconds is None else round(seconds, 1),
        "host": socket.gethostname(),
        "pid": os.getpid(),
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
    """The first setting in which a configuration differs from that of the run in a folder."""
    path = folder / "config.yaml"
    if not path.is_file():
        return ""
    content = _read_yaml(path)
    if not isinstance(content, dict) or not content:
        raise UserError(f"{path}: expected the configuration of a run, found another content")
    old, new = _flat(content), _flat(config.model_dump())
    for key in sorted(old.keys() | new.keys()):
        if not key.startswith(_FREE) and old.get(key) != new.get(key):
            return (
                f"{key}: expected {old.get(key)}, as in the run that lies in {folder}, "
                f"found {new.get(key)}"
            )
    return ""


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(values, dict):
        return {prefix.removesuffix("."): values}
    return {
        k: v for key, value in values.items() for k, v in _flat(value, f"{prefix}{key}.").items()
    }


def find_runs(path: Path) -> list[Run]:
    """The runs in a folder and below it, in the order of their names."""
    folders = {file.parent for name in ("status.json", "metrics.json") for file in path.rglob(name)}
    return [_read_run(folder) for folder in sorted(folders)]


def _read_run(folder: Path) -> Run:
    status = _read_json(folder / "status.json")
    metrics = _read_json(folder / "metrics.json")
    items = (item.partition("=") for item in overrides_of(folder))
    # The preset of a sweep and a checkpoint say nothing about what a run is.
    overrides = {k.lstrip("+"): v for k, _, v in items if k not in ("+sweep", "resume")}
    config = _read_yaml(folder / "config.yaml")
    seed = int(overrides.pop("seed", config.get("seed", 0)))
    # Folders of runs from before states were kept hold metrics alone.
    state = status.get("state", "finished")
    if state == "running" and not _alive(status):
        state = "interrupted"
    return Run(
        folder,
        overrides,
        seed,
        state,
        status.get("reason", ""),
        status.get("seconds", math.nan),
        metrics if state == "finished" else {},
        # Runs from before there were other tasks do not name theirs.
        find_task(config.get("task", "vae")).selected_by,
    )


def _alive(status: dict[str, Any]) -> bool:
    """Whether the process of a run still lives; taken for granted on another machine."""
    if status["host"] != socket.gethostname():
        return True
    try:
        os.kill(status["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def overrides_of(folder: Path) -> list[str]:
    """What a run was started with: Hydra also keeps what it was refused to go on with."""
    started = _read_json(folder / "environment.json")
    if "overrides" in started:
        return list(started["overrides"])
    return list(_read_yaml(folder / ".hydra" / "overrides.yaml"))


def _read_json(path: Path) -> dict[str, Any]:
    return _read(path, lambda text: dict(json.loads(text)))


def _read_yaml(path: Path) -> Any:
    return _read(path, lambda text: OmegaConf.to_container(OmegaConf.create(text)))


def _read(path: Path, parse: Callable[[str], Any]) -> Any:
    """What a file of a run holds; nothing where there is none."""
    try:
        return parse(path.read_text()) if path.is_file() else {}
    except (ValueError, TypeError, YAMLError, OmegaConfBaseException) as error:
        raise UserError(
            f"{path}: expected the file that a run has written, found another "
            f"({type(error).__name__})"
        ) from error


def write_csv(path: Path, runs: list[Run]) -> None:
    """Writes a row a run: folder, overrides, seed, state, reason, seconds and metrics."""
    keys = dict.fromkeys(key for run in runs for key in run.overrides)
    names = dict.fromkeys(name for run in runs for name in run.metrics)
    with write_file(path) as file:
        writer = csv.writer(file)
        writer.writerow(["run", *keys, "seed", "state", "reason", "seconds", *names])
        for run in runs:
            about = [run.seed, run.state, run.reason, run.seconds]
            values = [run.overrides.get(key, "") for key in keys]
            metrics = [run.metrics.get(name, "") for name in names]
            writer.writerow([run.folder.relative_to(path.parent), *values, *about, *metrics])
