"""Callbacks that show what a model learns: pictures, and warnings if it learns nothing."""

import logging

import pytorch_lightning as pl
from pytorch_lightning.loggers import TensorBoardLogger

from dvae.training.module import TaskModule

__all__ = ["Concerns", "Pictures"]

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
