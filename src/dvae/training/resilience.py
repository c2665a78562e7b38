"""What lets a run be cut off and go on: Lightning callbacks that all training runs carry."""

import math
import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint, EarlyStopping, ModelCheckpoint

from dvae.errors import DivergedError, PrunedError

__all__ = ["BestCheckpoint", "Finite", "LastCheckpoint", "Patience", "Pruning"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class Finite(pl.Callback):
    """Ends a run whose validation gives no finite number, before a checkpoint is written.

    Args:
        monitor: The metric that runs are compared by.
    """

    def __init__(self, monitor: str) -> None:
        self.monitor = monitor

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Looks at the metric.

        Raises:
            DivergedError: If it is NaN or infinite.
        """
        value = float(trainer.callback_metrics[self.monitor])
        if not torch.tensor(value).isfinite():
            raise DivergedError(
                f"{self.monitor}: expected a finite number, found {value} after "
                f"{trainer.global_step} steps; a smaller optimizer.lr may help"
            )


class BestCheckpoint(ModelCheckpoint):
    """Keeps the checkpoint with the best validation, in a file of a fixed name.

    What it reads back from a checkpoint is a score alone: file names that stand in one are neither
    loaded nor removed.

    Args:
        path: The file to write.
        monitor: The metric; more is better.
    """

    def __init__(self, path: Path, monitor: str) -> None:
        super().__init__(
            path.parent, path.stem, monitor=monitor, mode="max", enable_version_counter=False
        )
        self.path = path

    def state_dict(self) -> dict[str, Any]:
        """The best score so far."""
        score = self.best_model_score
        return {"score": None if score is None else float(score)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes the score over where its checkpoint is there."""
        if state_dict["score"] is None or not self.path.is_file():
            return
        score = torch.tensor(state_dict["score"], dtype=torch.float64)
        # As Lightning spells it: under another name it would count as a file to remove.
        path = os.path.realpath(self.path)
        self.best_k_models = {path: score}
        self.best_model_path = self.kth_best_model_path = path
        self.best_model_score = self.kth_value = score


class Patience(EarlyStopping):
    """Early stopping whose patience is this run's, also where it goes on from another."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes the score over, and how long there has been none better."""
        ended = state_dict["wait_count"] >= self.patience
        stopped = state_dict["stopped_epoch"] if ended else 0
        super().load_state_dict(state_dict | {"patience": self.patience, "stopped_epoch": stopped})


class LastCheckpoint(Checkpoint):
    """Writes the checkpoint that a run goes on from.

    It does so after each epoch, every so many seconds within one, and on SIGINT, SIGTERM, SIGUSR1
    or SIGUSR2, which it then obeys: who handled the signal before, such as a launcher that puts
    the job back into its queue, is called after; otherwise the process ends with 128 + the signal's
    number. A second SIGINT ends it at once.

    Args:
        path: The file to write.
        every: Seconds between two checkpoints within an epoch.
    """

    def __init__(self, path: Path, every: float) -> None:
        self.path = path
        self.every = every
        self._received: int | None = None
        self._due = math.inf
        # Lightning puts its own handler in their place before training starts.
        self._outer: dict[int, Any] = {number: signal.getsignal(number) for number in _SIGNALS}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Takes the signals over; Lightning gives them back at the end of training."""
        self._due = time.monotonic() + self.every
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                signal.signal(number, self._receive)
        # A run that had ended early when its checkpoint was written does not go on.
        callbacks = trainer.callbacks  # type: ignore[attr-defined]
        stopped = [c.stopped_epoch for c in callbacks if isinstance(c, EarlyStopping)]
        trainer.should_stop |= any(stopped)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if number == self._received == signal.SIGINT:
            raise SystemExit(128 + number)
        self._received = number

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        """Saves where it is time, and obeys; at the end of an epoch that is left to its end."""
        if not trainer.is_last_batch:
            self._save_and_obey(trainer, time.monotonic() >= self._due)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Saves and obeys."""
        self._save_and_obey(trainer, True)

    def _save_and_obey(self, trainer: pl.Trainer, due: bool) -> None:
        """As all processes, if one of them has to."""
        agree = trainer.strategy.reduce_boolean_decision
        told = agree(self._received is not None, all=False)
        if not (told or agree(due, all=False)):
            return
        trainer.save_checkpoint(self.path)
        self._due = time.monotonic() + self.every
        if not told:
            return
        number, self._received = self._received, None
        if trainer.is_global_zero:
            name = signal.Signals(number).name if number else "another process"
            print(
                f"interrupted by {name} at step {trainer.global_step}; go on with "
                f"resume={self.path.parent.parent}",
                file=sys.stderr,
            )
        if number is None:
            raise SystemExit(0)
        outer = self._outer[number]
        # The default of SIGINT raises what Lightning would answer with exit code 1.
        if not callable(outer) or outer is signal.default_int_handler:
            raise SystemExit(128 + number)
        outer(number, None)


class Pruning(pl.Callback):
    """Reports each validation to a search, and ends the run where the search gives it up.

    Args:
        trial: The trial of the search that this run is.
        monitor: The metric; more is better.
    """

    def __init__(self, trial: Any, monitor: str) -> None:
        self.trial = trial
        self.monitor = monitor

    @classmethod
    def from_environment(cls, monitor: str) -> list["Pruning"]:
        """The callback of the search that started this process; none where there is no search."""
        if "DVAE_TRIAL" not in os.environ:
            return []
        import optuna

        study = optuna.load_study(study_name=None, storage=os.environ["DVAE_STUDY"])
        return [cls(optuna.trial.Trial(study, int(os.environ["DVAE_TRIAL"])), monitor)]

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Reports and asks.

        Raises:
            PrunedError: If other trials were better at the same epoch.
        """
        value, epoch = float(trainer.callback_metrics[self.monitor]), trainer.current_epoch
        self.trial.report(value, epoch)
        if self.trial.should_prune():
            raise PrunedError(
                f"{self.monitor} {value:.2f} after epoch {epoch + 1}: others are better"
            )
