"""Summarizes a folder of runs: a CSV, a plot and a table, ranked by validation."""

import math
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from rich.console import Console
from rich.table import Table

from dvae.errors import UserError
from dvae.runs.files import read_json
from dvae.runs.program import program
from dvae.runs.ranking import Setting, best_of, rank, score
from dvae.runs.results import Run, find_runs, write_csv

__all__ = ["command", "summarize", "watch"]


def command(run: Run) -> str:
    """The command that reproduces a run."""
    overrides = [f"{key}={value}" for key, value in (run.overrides | {"seed": run.seed}).items()]
    further = read_json(run.folder / "environment.json").get("config_dir")
    folder = ["--config-dir", further] if further else []
    return shlex.join([*program("train"), *folder, *overrides])


def watch(path: Path, validations: int) -> str:
    """The command that shows runs in TensorBoard, with the pictures of that many validations."""
    pictures = f"images={validations}"
    return shlex.join(["tensorboard", "--logdir", str(path), "--samples_per_plugin", pictures])


def summarize(path: Path, key: str | None = None) -> list[Setting]:
    """Writes `sweep.csv` and `sweep.png` into a folder of runs, and prints a ranked table.

    Args:
        path: The folder; runs may lie at any depth and may be in progress.
        key: A swept key: table and plot show the best setting for each of its values only, and the
            commands of all of these are printed.

    Returns:
        The settings of finished runs that are shown, best first.

    Raises:
        UserError: If there is no run, or the key was not swept.
    """
    runs = find_runs(path) if path.is_dir() else []
    if not runs:
        found = "none" if path.is_dir() else "no folder"
        raise UserError(f"{path}: expected a folder with runs in it, found {found}")
    settings, console = rank(runs), Console(markup=False)
    if key:
        settings = best_of(settings, key)
    if not console.is_terminal:
        console.width = 160
    if settings:
        console.print(_ranking(settings))
    if unfinished := [run for run in runs if run.state != "finished"]:
        console.print(_reasons(path, unfinished))
    rows = {"sweep": path, "watch": watch(path, max(run.validations for run in runs))}
    if settings and score(settings[0].runs[0]) > -math.inf:
        best = settings[0].runs[0]
        rows = {"best run": best.folder, "its command": command(best)} | rows
    if key:
        rows |= {setting.values[key]: command(setting.runs[0]) for setting in settings}
    for name, row in rows.items():
        console.print(f"{name:>16}  {row}", soft_wrap=True, highlight=False)
    # After the tables, which are of use where nothing can be written, too.
    write_csv(path / "sweep.csv", runs)
    if settings:
        from dvae.runs.plot import plot

        drawn = [replace(s, values={key: s.values[key]}) for s in settings] if key else settings
        plot(path / "sweep.png", drawn)
    return settings


def _ranking(settings: Sequence[Setting]) -> Table:
    metrics = settings[0].runs[0].metrics
    # The last likelihood is the tightest: the exact one if there is one.
    likelihoods = [name for name in metrics if name.startswith("test/nll_")]
    by = settings[0].selected_by
    tested = by.replace("val/", "test/")
    names = [name for name in (by, tested) if name in metrics] + likelihoods[-1:]
    ranked = by in names
    how = f"ranked by {by}" if ranked else "without validation images, hence not ranked"
    table = Table(title=f"Settings, {how}, ± standard error", title_justify="left")
    for key in ("rank", *settings[0].values):
        table.add_column(key, overflow="fold")
    # For single seeds, the difference to the best would repeat what the metric's column tells.
    compared = ranked and any(len(setting.runs) > 1 for setting in settings)

    def measured(setting: Setting) -> dict[str, str]:
        cells = {name: _cell(setting.mean(name), setting.error(name)) for name in names}
        difference = {"behind the best": _cell(*setting.behind(settings[0]))} if compared else {}
        return cells | difference

    for name in ("seeds", *measured(settings[0]), "seconds"):
        table.add_column(name, justify="right")
    for place, setting in enumerate(settings, 1):
        table.add_row(
            str(place) if ranked else "",
            *setting.values.values(),
            str(len(setting.runs)),
            *measured(setting).values(),
            f"{fmean(run.seconds for run in setting.runs):.0f}",
        )
    return table


def _cell(mean: float, error: float) -> str:
    return f"{mean:.2f}" if math.isnan(error) else f"{mean:.2f} ± {error:.2f}"


def _reasons(path: Path, runs: Sequence[Run]) -> Table:
    table = Table(title="Runs without a result", title_justify="left")
    for name in ("run", "state", "reason"):
        table.add_column(name, overflow="fold")
    for run in runs:
        table.add_row(str(run.folder.relative_to(path)), run.state, run.reason)
    return table
