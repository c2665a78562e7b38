"""Times whole runs: the seconds from the command to a validation ELBO, a table, a plot and JSON."""

import logging
import math
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dvae.benchmark.options import BenchmarkConfig
from dvae.benchmark.tutorial import TAG
from dvae.commands.checking import check
from dvae.commands.cli import compose
from dvae.errors import UserError
from dvae.files import check_writable, write_file, write_json
from dvae.tasks.vae.config import VAEConfig
from dvae.training.terminal import status

__all__ = ["Curve", "read_curve", "time_to_quality"]

_PROGRAMS = {
    "train": ["-m", "dvae.console.train"],
    "tutorial": ["-m", "dvae.benchmark.tutorial"],
}
"""Kind of a case → arguments of the interpreter."""


@dataclass(frozen=True)
class Curve:
    """The validation curve of a run.

    Attributes:
        case: What ran.
        seed: Its seed.
        seconds: Time of each validation, in seconds since the command.
        elbo: `val/elbo` at that time, in nats.
    """

    case: str
    seed: int
    seconds: list[float]
    elbo: list[float]

    def time_to(self, target: float) -> float:
        """Seconds to the first validation with −`val/elbo` ≤ target; infinity if there is none."""
        reached = [s for s, elbo in zip(self.seconds, self.elbo, strict=True) if -elbo <= target]
        return reached[0] if reached else math.inf


def time_to_quality(config: BenchmarkConfig) -> list[Curve]:
    """Runs the cases one after another, prints a table, and writes a plot and JSON.

    Args:
        config: The configuration; each case is repeated with `rounds` seeds.

    Returns:
        A curve for each run.

    Raises:
        UserError: If a case is wrong or fails.
    """
    output, console = Path(config.paths.output_dir), Console(markup=False)
    commands = [_command(case, config) for case in config.cases]
    check_writable(output / "time_to_quality.json")
    curves = []
    with status() as show:
        for seed in range(config.rounds):
            for number, (case, command) in enumerate(zip(config.cases, commands, strict=True)):
                show(f"seed {seed}: {case}")
                folder = output / f"case_{number}_seed_{seed}"
                curves.append(_run(case, seed, command, folder))
    content = {"targets": config.targets, "curves": [asdict(curve) for curve in curves]}
    console.print(_table(curves, config))
    write_json(output / "time_to_quality.json", content)
    _plot(output / "time_to_quality.png", curves, config.targets)
    for name in ("time_to_quality.png", "time_to_quality.json"):
        console.print(f"written to {output / name}", soft_wrap=True, highlight=False)
    return curves


def _command(case: str, config: BenchmarkConfig) -> list[str]:
    """The command of a case, without seed and folder; its overrides are checked."""
    kind, *overrides = shlex.split(case) or [""]
    if kind not in _PROGRAMS:
        raise UserError(f"cases: expected each to begin with one of {[*_PROGRAMS]}, found {case!r}")
    data = f"paths.data_dir={config.paths.data_dir}"
    overrides = [*config.shared, *config.extra, *overrides, data]
    check(VAEConfig, compose("train", [*overrides, "paths.output_dir=unused"]))
    return [sys.executable, *_PROGRAMS[kind], *overrides]


def _run(case: str, seed: int, command: Sequence[str], folder: Path) -> Curve:
    folder.mkdir(parents=True)
    arguments = [*command, f"seed={seed}", f"hydra.run.dir={folder}"]
    start = time.time()
    with (folder / "output.txt").open("wb") as file:
        process = subprocess.run(arguments, stdout=file, stderr=subprocess.STDOUT, check=False)
    if process.returncode:
        lines = (folder / "output.txt").read_text("utf-8", "replace").splitlines()
        raise UserError(f"{case}: expected exit code 0, found {process.returncode}: {lines[-1:]}")
    return read_curve(case, seed, folder, start)


def read_curve(case: str, seed: int, folder: Path, start: float) -> Curve:
    """Reads the validation curve of a run from its TensorBoard events.

    Args:
        case: Name of the case.
        seed: Seed of the run.
        folder: The run's folder.
        start: When the command started, in seconds since the epoch.
    """
    logging.getLogger("tensorboard").setLevel(logging.WARNING)
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    points = events.Scalars(TAG)
    return Curve(case, seed, [p.wall_time - start for p in points], [p.value for p in points])


def _table(curves: Sequence[Curve], config: BenchmarkConfig) -> Table:
    overrides = " ".join([*config.shared, *config.extra])
    table = Table(
        title=f"Seconds from the command to −{TAG}, in nats; median of {config.rounds} seeds",
        caption=f"relative to {config.relative_to!r}; all with {overrides or 'nothing'}",
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("case", overflow="fold")
    for target in config.targets:
        table.add_column(f"{target:g}", justify="right")
    table.add_column("last", justify="right")
    table.add_column("after s", justify="right")
    table.add_column("relative", justify="right")
    last = {
        case: median(curve.seconds[-1] for curve in curves if curve.case == case)
        for case in config.cases
    }
    for case in config.cases:
        own = [curve for curve in curves if curve.case == case]
        times = [median(curve.time_to(target) for curve in own) for target in config.targets]
        table.add_row(
            case,
            *("—" if math.isinf(seconds) else f"{seconds:.0f}" for seconds in times),
            f"{-median(curve.elbo[-1] for curve in own):.2f}",
            f"{last[case]:.0f}",
            f"{last[case] / last[config.relative_to]:.2f}",
        )
    return table


def _plot(path: Path, curves: Sequence[Curve], targets: Sequence[float]) -> None:
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    colours = {case: f"C{i}" for i, case in enumerate(dict.fromkeys(c.case for c in curves))}
    for curve in curves:
        label = curve.case if curve.seed == curves[0].seed else None
        loss = [-elbo for elbo in curve.elbo]
        axes.plot(
            curve.seconds, loss, marker=".", color=colours[curve.case], label=label, linewidth=1
        )
    for target in targets:
        axes.axhline(target, color="grey", linewidth=0.5)
    axes.set_ylim(min(targets) - 2, max(targets) + 15)
    axes.set_xlabel("seconds from the command")
    axes.set_ylabel("−val/elbo, one-hot codes, in nats")
    axes.legend()
    with write_file(path, "wb") as file:
        figure.savefig(file, format="png", dpi=120)
