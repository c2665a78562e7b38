"""Times the training step of several configurations, turn by turn: a table and JSON."""

import itertools
import shlex
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import pytorch_lightning as pl
import torch
from rich.console import Console
from rich.table import Table

from dvae.build import build_data, build_module, build_vae, count_steps
from dvae.callbacks import quiet
from dvae.cli import compose
from dvae.config import parse
from dvae.data.module import ImageDataModule
from dvae.modules.vae import VAEModule
from dvae.report import write_json
from dvae.schemas import BenchmarkConfig, TrainConfig
from dvae.train import PRECISION

__all__ = ["Timing", "benchmark"]


@dataclass(frozen=True)
class Timing:
    """Time of one case.

    Attributes:
        case: Its overrides.
        milliseconds: A training step, the median over turns.
        ratio: To the first case of the same turn, the median over turns.
    """

    case: str
    milliseconds: float
    ratio: float


class _Clock(pl.Callback):
    """Notes when each training step begins."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_batch_start(self, trainer: pl.Trainer, *_: object) -> None:
        """Waits for the device, so that the step before counts whole."""
        if trainer.strategy.root_device.type == "cuda":
            torch.cuda.synchronize()
        self.times.append(time.perf_counter())

    def step_seconds(self, warmup: int) -> float:
        """Median time of a step after the first ones."""
        times = self.times[warmup:]
        return median(b - a for a, b in itertools.pairwise(times))


class _Case:
    """A model that trains for some steps at each turn."""

    def __init__(self, overrides: str, config: BenchmarkConfig) -> None:
        folders = [f"paths.{key}={value}" for key, value in config.paths.model_dump().items()]
        given = [*config.shared, *shlex.split(overrides), *folders]
        self.config = parse(TrainConfig, compose("train", given))
        self.name = overrides

    def prepare(self) -> None:
        pl.seed_everything(self.config.seed, verbose=False)
        self.data: ImageDataModule = build_data(
            self.config.data, self.config.paths.data_dir, self.config.seed
        )
        self.data.prepare_data()
        vae = build_vae(self.config, self.data.pixel_mean())
        self.module: VAEModule = build_module(self.config, vae, count_steps(self.config, self.data))
        if self.config.compile:
            vae.compile()

    def turn(self, warmup: int, steps: int) -> float:
        """Trains for some steps; seconds of one."""
        clock = _Clock()
        trainer = pl.Trainer(
            accelerator=self.config.trainer.accelerator,
            devices=1,
            max_epochs=-1,
            # The last step has no successor whose beginning would end it.
            max_steps=warmup + steps + 1,
            precision=PRECISION[self.config.precision],
            gradient_clip_val=self.config.trainer.gradient_clip or None,
            limit_val_batches=0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            callbacks=[clock],
        )
        trainer.fit(self.module, datamodule=self.data)
        return clock.step_seconds(warmup)


def benchmark(config: BenchmarkConfig) -> list[Timing]:
    """Times the cases in turns, prints a table, writes `benchmark.json`.

    Machines drift: cases that take turns meet the same conditions, and their ratios within a turn
    mean more than their times.

    Args:
        config: The configuration.

    Returns:
        One timing a case.

    Raises:
        UserError: If an input is wrong.
    """
    quiet()
    torch.set_flush_denormal(True)
    cases = [_Case(overrides, config) for overrides in config.cases]
    for case in cases:
        case.prepare()
    console = Console()
    rounds: list[list[float]] = []
    with console.status("timing") as status:
        for number in range(config.rounds):
            status.update(f"round {number + 1} of {config.rounds}")
            rounds.append([case.turn(config.warmup, config.steps) for case in cases])
    timings = [
        Timing(
            case.name,
            1e3 * median(row[i] for row in rounds),
            median(row[i] / row[0] for row in rounds),
        )
        for i, case in enumerate(cases)
    ]
    path = Path(config.paths.output_dir) / "benchmark.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, [asdict(timing) for timing in timings])
    console.print(_table(timings))
    console.print(f"written to {path}", soft_wrap=True, highlight=False)
    return timings


def _table(timings: list[Timing]) -> Table:
    table = Table(title="Time of a training step", title_justify="left")
    table.add_column("case")
    for name in ("ms", "relative"):
        table.add_column(name, justify="right")
    for timing in timings:
        table.add_row(timing.case, f"{timing.milliseconds:.1f}", f"{timing.ratio:.2f}")
    return table
