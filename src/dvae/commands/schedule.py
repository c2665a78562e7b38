"""Shows the schedules of a run, such as temperature and learning rate: a table and a plot."""

from pathlib import Path

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from dvae.files import write_file
from dvae.tasks import find_task
from dvae.training.config import RunConfig
from dvae.training.terminal import say

__all__ = ["show"]

_ROWS = 11


def show(config: RunConfig) -> Path:
    """Prints the schedules over the run, and writes `schedule.png`.

    Args:
        config: The configuration of the run.

    Returns:
        The path of the plot, in `config.paths.output_dir`.
    """
    total = find_task(config.task).data(config).steps_per_epoch() * config.trainer.max_epochs
    curves = {name.replace("_", " "): s for name, s in config.schedules(total).items()}
    table = Table(title=f"{total:,} steps", title_justify="left")
    for name in ("step", *curves):
        table.add_column(name, justify="right")
    for row in range(_ROWS):
        step = round(row * (total - 1) / (_ROWS - 1))
        table.add_row(f"{step:,}", *(f"{curve(step):.5g}" for curve in curves.values()))
    figure = Figure(figsize=(4 * len(curves), 3), layout="constrained")
    axes = figure.subplots(1, len(curves), squeeze=False)
    steps = range(0, total, max(1, total // 1000))
    for axis, (name, curve) in zip(axes[0], curves.items(), strict=True):
        axis.plot(steps, [curve(step) for step in steps])
        axis.set(title=name, xlabel="step", ylim=(0, None))
        axis.grid(alpha=0.3)
    path = Path(config.paths.output_dir) / "schedule.png"
    console = Console(markup=False)
    console.print(table)
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_file(path, "wb") as file:
        figure.savefig(file, dpi=100, format="png")
    for line in config.remarks(total):
        say(line)
    console.print(f"written to {path}", soft_wrap=True, highlight=False)
    return path
