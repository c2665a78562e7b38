"""Callbacks that show how training proceeds: pictures, warnings and the progress bar."""

import logging
import warnings
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import RichProgressBar
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities.types import STEP_OUTPUT

from dvae.data.base import TaskData
from dvae.training.module import TaskModule

__all__ = ["Concerns", "Pictures", "ProgressBar", "quiet"]

_FIRST_CHECK = 200
"""Step of the first check: codes of a model at the start carry no information."""
_LOG = logging.getLogger(__name__)


class Pictures(pl.Callback):
    """Writes a task's pictures to TensorBoard at each validation.

    Images and noise stay the same, so that pictures differ only by the model.
    """

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Writes the pictures of this validation."""
        logger = trainer.logger
        if not isinstance(logger, TensorBoardLogger) or not isinstance(pl_module, TaskModule):
            return
        board, step = logger.experiment, trainer.global_step
        data = trainer.datamodule  # type: ignore[attr-defined]
        for name, picture in pl_module.pictures(data, "val", seed=0).items():
            board.add_image(f"val/{name}", picture, step)
        if any(layer.estimator.uses_temperature for layer in pl_module.layers):
            board.add_scalar("val/temperature", pl_module.layers[0].temperature.item(), step)


class Concerns(pl.Callback):
    """Warns, in the log and in TensorBoard, when a validation shows that something is wrong.

    A warning is written when its condition first holds, and again only after it has cleared.
    """

    def __init__(self) -> None:
        self._active: set[str] = set()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Checks the metrics of the validation."""
        if not isinstance(pl_module, TaskModule) or trainer.global_step < _FIRST_CHECK:
            return
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        data = trainer.datamodule  # type: ignore[attr-defined]
        concerns = pl_module.concerns(metrics, data)
        for name in concerns.keys() - self._active if trainer.is_global_zero else ():
            _LOG.warning("step %d: %s: %s", trainer.global_step, name, concerns[name])
            if isinstance(trainer.logger, TensorBoardLogger):
                board = trainer.logger.experiment
                board.add_text(f"warnings/{name}", concerns[name], trainer.global_step)
        self._active = set(concerns)


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


def quiet() -> None:
    """Silences messages of Lightning and torch that a user cannot act on."""
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # At each compilation, torch remarks that the machine has no GPU.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    # The data are in memory, so that workers would not help.
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    # A resumed run finds its own checkpoints.
    warnings.filterwarnings("ignore", message=".*Checkpoint directory .* is not empty.*")
    # Code statistics are already summed over processes when they are logged.
    warnings.filterwarnings("ignore", message=".*recommended to use `self.log.*sync_dist=True.*")
    warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated.*")
