"""Shows the schedules of a run: a table and a plot of temperature, β and learning rate."""

from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
from rich.console import Console
from rich.table import Table

from dvae.build import (
    build_beta,
    build_learning_rate,
    build_temperature,
    build_training_data,
)
from dvae.files import write_file
from dvae.schemas import TrainConfig

__all__ = ["show"]

_ROWS = 11


def show(config: TrainConfig) -> Path:
    """Prints temperature, β and learning rate over the run and writes `schedule.png`.

    Args:
        config: The configuration of the run.

    Returns:
        Where the plot lies, in `config.paths.output_dir`.
    """
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    total = build_training_data(config).steps_per_epoch() * config.trainer.max_epochs
    curves: dict[str, Callable[[int], float]] = {
        "beta": build_beta(config, total),
        "learning rate": build_learning_rate(config, total),
    }
    if (temperature := build_temperature(config, total)) is not None:
        curves = {"temperature": temperature, **curves}
    table = Table(title=f"{total:,} steps", title_justify="left")
    for name in ("step", *curves):
        table.add_column(name, justify="right")
    for row in range(_ROWS):
        step = round(row * (total - 1) / (_ROWS - 1))
        table.add_row(f"{step:,}", *(f"{curve(step):.5g}" for curve in curves.values()))
    figure, axes = plt.subplots(1, len(curves), figsize=(4 * len(curves), 3), layout="constrained")
    steps = range(0, total, max(1, total // 1000))
    for axis, (name, curve) in zip(axes, curves.items(), strict=True):
        axis.plot(steps, [curve(step) for step in steps])
        axis.set(title=name, xlabel="step", ylim=(0, None))
        axis.grid(alpha=0.3)
    path = Path(config.paths.output_dir) / "schedule.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_file(path, "wb") as file:
        figure.savefig(file, dpi=100, format="png")
    plt.close(figure)
    console = Console()
    console.print(table)
    console.print(f"written to {path}", soft_wrap=True, highlight=False)
    return path
