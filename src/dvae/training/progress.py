"""Shows how training and evaluation proceed: a bar on a terminal, lines elsewhere."""

import time
from datetime import timedelta
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import RichProgressBar
from pytorch_lightning.utilities.types import STEP_OUTPUT

from dvae.data.base import TaskData
from dvae.training.module import TaskModule
from dvae.training.processes import runs_in_parallel
from dvae.training.terminal import has_terminal, say

__all__ = ["ProgressBar", "ProgressLines", "progress"]

_SILENCE = 30.0
"""Seconds after which long epochs, validations and tests print a line."""


def progress(monitor: str | None = None, name: str | None = None) -> "ProgressBar | ProgressLines":
    """A bar; lines if there is no terminal, or for jobs that run in parallel.

    Args:
        monitor: A validation metric to show.
        name: Name of the run, with which each line of a parallel job begins.
    """
    if runs_in_parallel():
        return ProgressLines(monitor, name)
    return ProgressBar(monitor) if has_terminal() else ProgressLines(monitor)


class ProgressBar(RichProgressBar):
    """Lightning's bar, but it counts optimizer steps and shows the training curves.

    Args:
        monitor: A validation metric that the bar also shows.
    """

    def __init__(self, monitor: str | None = None) -> None:
        super().__init__(refresh_rate=5)
        self.monitor = monitor
        self._steps = 0

    @property
    def total_train_batches(self) -> int | float:
        """Optimizer steps in an epoch."""
        return self._steps or super().total_train_batches

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Reads from the data how many steps an epoch has."""
        super().on_train_start(trainer, pl_module)
        data = trainer.datamodule  # type: ignore[attr-defined]
        self._steps = data.steps_per_epoch() if isinstance(data, TaskData) else 0

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: STEP_OUTPUT,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Moves the bar to the global step, because a call takes several steps."""
        if self._steps:
            batch_idx = trainer.global_step - trainer.current_epoch * self._steps - 1
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def get_metrics(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """Training curves without the prefix `train/`, and the monitored metric."""
        curves = pl_module.curves if isinstance(pl_module, TaskModule) else {}
        short = {name.removeprefix("train/"): value for name, value in curves.items()}
        shown = pl_module.shown if isinstance(pl_module, TaskModule) else ()
        metrics: dict[str, int | str | float | dict[str, float]]
        metrics = {name: short[name] for name in (*shown, "temperature") if name in short}
        if self.monitor in trainer.callback_metrics:
            metrics[self.monitor] = trainer.callback_metrics[self.monitor].item()
        return metrics


class ProgressLines(pl.Callback):
    """Prints a line for each validation, and others where there would be long silence.

    Args:
        monitor: The validation metric to print.
        name: What each line begins with.
    """

    def __init__(self, monitor: str | None = None, name: str | None = None) -> None:
        self.monitor = monitor
        self._prefix = f"{name}: " if name else ""
        self._total = self._first = 0
        self._start = self._last = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Starts the clock."""
        data: TaskData = trainer.datamodule  # type: ignore[attr-defined]
        self._total = data.steps_per_epoch() * (trainer.max_epochs or 0)
        self._first = trainer.global_step
        self._start = self._last = time.monotonic()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        """Prints a line after a long silence."""
        if self._silent():
            self._say_training(trainer, pl_module, None)

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        """Prints a line after a long silence."""
        if self._silent():
            self._say(trainer, f"validation  batch {args[2] + 1}/{trainer.num_val_batches[0]}")

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Prints the line of this validation."""
        self._say_training(trainer, pl_module, self.monitor)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Prints that the test starts, and starts the clock."""
        self._start = time.monotonic()
        self._say_test(trainer, pl_module, 0)

    def on_test_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        """Prints a line after a long silence."""
        if self._silent():
            self._say_test(trainer, pl_module, args[2] + 1)

    def _silent(self) -> bool:
        return time.monotonic() - self._last >= _SILENCE

    def _say_training(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, monitor: str | None
    ) -> None:
        step = trainer.global_step
        parts = [
            f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}",
            f"step {step:,}/{self._total:,}",
        ]
        if monitor in trainer.callback_metrics:
            parts.append(f"{monitor} {trainer.callback_metrics[monitor].item():.5g}")
        if isinstance(pl_module, TaskModule):
            curves = {name: pl_module.curves.get(f"train/{name}") for name in pl_module.shown}
            parts += [f"train/{name} {v:.5g}" for name, v in curves.items() if v is not None]
            if any(layer.estimator.uses_temperature for layer in pl_module.layers):
                parts.append(f"temperature {pl_module.layers[0].temperature.item():.3g}")
        self._say(trainer, *parts, *self._times(step - self._first, self._total - step))

    def _say_test(self, trainer: pl.Trainer, pl_module: pl.LightningModule, done: int) -> None:
        split = pl_module.evaluation.split if isinstance(pl_module, TaskModule) else "test"
        total = int(trainer.num_test_batches[0])
        self._say(trainer, split, f"batch {done}/{total}", *self._times(done, total - done))

    def _times(self, done: int, left: int) -> list[str]:
        """Elapsed and estimated remaining time, from the numbers of steps done and left."""
        if not done:
            return []
        elapsed = time.monotonic() - self._start
        return [f"{_clock(elapsed)} elapsed", f"{_clock(elapsed / done * left)} left"]

    def _say(self, trainer: pl.Trainer, *parts: str) -> None:
        self._last = time.monotonic()
        if trainer.is_global_zero:
            say(self._prefix + "  ".join(parts))


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
