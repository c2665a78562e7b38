"""What lets a run be cut off and go on: Lightning callbacks that all training runs carry."""

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
import torch

from dvae.errors import DivergedError, PrunedError
from dvae.runs import SELECTED_BY

__all__ = ["FinishEpoch", "Finite", "Pruning"]

_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class Finite(pl.Callback):
    """Ends a run whose validation ELBO is no finite number, before a checkpoint is written."""

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Looks at the ELBO.

        Raises:
            DivergedError: If it is NaN or infinite.
        """
        elbo = float(trainer.callback_metrics[SELECTED_BY])
        if not torch.tensor(elbo).isfinite():
            raise DivergedError(
                f"{SELECTED_BY}: expected a finite number, found {elbo} after "
                f"{trainer.global_step} steps; a smaller optimizer.lr may help"
            )


class FinishEpoch(pl.Callback):
    """On SIGTERM, SIGUSR1 or SIGUSR2, finishes the epoch, writes the last checkpoint, then obeys.

    Runs are cut between epochs only, so that no image is seen twice. Who handled the signal before,
    such as a launcher that puts the job back into its queue, is called after; otherwise the process
    ends with 128 + the signal's number.

    Args:
        checkpoint: The file to write.
    """

    def __init__(self, checkpoint: Path) -> None:
        self.checkpoint = checkpoint
        self._received: int | None = None
        # Lightning puts its own handler in their place before training starts.
        self._outer: dict[int, Any] = {number: signal.getsignal(number) for number in _SIGNALS}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Takes the signals over; Lightning gives them back at the end of training."""
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._received = number

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Saves and obeys, in all processes if one was told to."""
        told = trainer.strategy.reduce_boolean_decision(self._received is not None, all=False)
        if not told:
            return
        trainer.save_checkpoint(self.checkpoint)
        number, self._received = self._received, None
        if number is None:
            raise SystemExit(0)
        outer = self._outer[number]
        if not isinstance(outer, Callable):  # type: ignore[arg-type]
            raise SystemExit(128 + number)
        outer(number, None)


class Pruning(pl.Callback):
    """Reports each validation to a search, and ends the run where the search gives it up.

    Args:
        trial: The trial of the search that this run is.
    """

    def __init__(self, trial: Any) -> None:
        self.trial = trial

    @classmethod
    def from_environment(cls) -> list["Pruning"]:
        """The callback of the search that started this process; none where there is no search."""
        if "DVAE_TRIAL" not in os.environ:
            return []
        import optuna

        study = optuna.load_study(study_name=None, storage=os.environ["DVAE_STUDY"])
        return [cls(optuna.trial.Trial(study, int(os.environ["DVAE_TRIAL"])))]

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Reports and asks.

        Raises:
            PrunedError: If other trials were better at the same epoch.
        """
        elbo, epoch = float(trainer.callback_metrics[SELECTED_BY]), trainer.current_epoch
        self.trial.report(elbo, epoch)
        if self.trial.should_prune():
            raise PrunedError(
                f"{SELECTED_BY} {elbo:.2f} after epoch {epoch + 1}: others are better"
            )
