"""Reads runs from their folders, also while they are in progress."""

import csv
import math
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dvae.files import is_locked, write_file
from dvae.runs.alive import is_alive
from dvae.runs.files import overrides_of, read_json, read_yaml
from dvae.tasks import find_task
from dvae.training.migrations import migrate

__all__ = ["Run", "find_runs", "write_csv"]


@dataclass(frozen=True)
class Run:
    """A run, read from its folder.

    Attributes:
        folder: Its folder.
        overrides: Key → value, as text, of the overrides on the command line, without the seed.
        seed: Its seed.
        state: finished, diverged, pruned, failed, interrupted or running.
        reason: Why it did not finish; empty if it finished.
        seconds: Time of training and test, over all its starts that were not killed.
        metrics: Its metrics; empty if it did not finish.
        selected_by: The metric that its task compares runs by.
        validations: Validations of a whole run.
    """

    folder: Path
    overrides: dict[str, str]
    seed: int
    state: str
    reason: str
    seconds: float
    metrics: dict[str, float]
    selected_by: str
    validations: int


def find_runs(path: Path) -> list[Run]:
    """The runs in a folder and its subfolders, sorted by path."""
    folders = {file.parent for name in ("status.json", "metrics.json") for file in path.rglob(name)}
    return [_read_run(folder) for folder in sorted(folders)]


def _read_run(folder: Path) -> Run:
    status = read_json(folder / "status.json")
    metrics = read_json(folder / "metrics.json")
    items = (item.partition("=") for item in overrides_of(folder))
    # A preset and a checkpoint to resume from are not settings of a run.
    overrides = {k.lstrip("+"): v for k, _, v in items if k not in ("+sweep", "resume")}
    config = read_yaml(folder / "config.yaml")
    seed = int(overrides.pop("seed", config.get("seed", 0)))
    # Old runs have no status.json: only finished ones wrote metrics.
    state = status.get("state", "finished")
    if state == "running" and not _alive(folder, status):
        state = "interrupted"
    return Run(
        folder,
        overrides,
        seed,
        state,
        status.get("reason", ""),
        status.get("seconds", math.nan),
        metrics if state == "finished" else {},
        find_task(migrate(config)["task"]).selected_by,
        _validations(config.get("trainer", {})),
    )


def _validations(trainer: dict[str, Any]) -> int:
    return trainer.get("max_epochs", 1) // trainer.get("validate_every", 1)


def _alive(folder: Path, status: dict[str, Any]) -> bool:
    # Windows cannot be asked by a number, but a run that is alive holds the lock of its folder.
    if sys.platform == "win32" and status["host"] == socket.gethostname():
        return is_locked(folder)
    return is_alive(status)


def write_csv(path: Path, runs: list[Run]) -> None:
    """Writes a row for each run: folder, overrides, seed, state, reason, seconds and metrics."""
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
