"""Lightning callbacks of every training run: checkpoints, signals, early ends."""

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

# Windows has only the first two.
_SIGNALS = [
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2")
    if hasattr(signal, name)
]


class Finite(pl.Callback):
    """Ends a run whose validation metric is not finite, before a checkpoint is saved.

    Args:
        monitor: The metric.
    """

    def __init__(self, monitor: str) -> None:
        self.monitor = monitor

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Checks the metric.

        Raises:
            DivergedError: If the metric is NaN or infinite.
        """
        value = float(trainer.callback_metrics[self.monitor])
        if not torch.tensor(value).isfinite():
            raise DivergedError(
                f"{self.monitor}: expected a finite number, found {value} after "
                f"{trainer.global_step} steps; a smaller optimizer.lr may help"
            )


class BestCheckpoint(ModelCheckpoint):
    """Keeps the checkpoint with the best validation, in a file with a fixed name.

    From a checkpoint it restores the best score only. It ignores file names in the checkpoint, so
    that an untrusted one cannot make it load or remove files.

    Args:
        path: The file to write.
        monitor: The metric; higher is better.
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
        """Restores the best score if the file of the best checkpoint exists."""
        if state_dict["score"] is None or not self.path.is_file():
            return
        score = torch.tensor(state_dict["score"], dtype=torch.float64)
        # Lightning compares resolved paths; it would remove a file under any other spelling.
        path = os.path.realpath(self.path)
        self.best_k_models = {path: score}
        self.best_model_path = self.kth_best_model_path = path
        self.best_model_score = self.kth_value = score


class Patience(EarlyStopping):
    """Early stopping that uses this run's patience, even after resuming with another one."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the best score, and the number of validations without improvement."""
        ended = state_dict["wait_count"] >= self.patience
        stopped = state_dict["stopped_epoch"] if ended else 0
        super().load_state_dict(state_dict | {"patience": self.patience, "stopped_epoch": stopped})


class LastCheckpoint(Checkpoint):
    """Saves the checkpoint that a run resumes from.

    It saves after each epoch, every `every` seconds within an epoch, and on SIGINT, SIGTERM,
    SIGUSR1 or SIGUSR2. After the save for a signal, it calls the handler that was installed before,
    for example that of a launcher that requeues the job. Without such a handler, the process exits
    with 128 + the signal's number. A second SIGINT exits at once.

    Args:
        path: The file to write.
        every: Seconds between two saves within an epoch.
    """

    def __init__(self, path: Path, every: float) -> None:
        self.path = path
        self.every = every
        self._received: int | None = None
        self._due = math.inf
        # Read them now, because Lightning installs its own handlers before training starts.
        self._outer: dict[int, Any] = {number: signal.getsignal(number) for number in _SIGNALS}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Installs signal handlers; Lightning restores the old ones at the end of training."""
        self._due = time.monotonic() + self.every
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                signal.signal(number, self._receive)
        # Early stopping may have ended the run before its checkpoint was saved.
        callbacks = trainer.callbacks  # type: ignore[attr-defined]
        stopped = [c.stopped_epoch for c in callbacks if isinstance(c, EarlyStopping)]
        trainer.should_stop |= any(stopped)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if number == self._received == signal.SIGINT:
            raise SystemExit(128 + number)
        self._received = number

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        """Saves if due, and handles signals; after the last batch, `on_train_epoch_end` does."""
        if not trainer.is_last_batch:
            self._save_and_exit(trainer, time.monotonic() >= self._due)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Saves, and handles signals."""
        self._save_and_exit(trainer, True)

    def _save_and_exit(self, trainer: pl.Trainer, due: bool) -> None:
        """Saves if due or after a signal in any process; exits after a signal."""
        agree = trainer.strategy.reduce_boolean_decision
        signalled = agree(self._received is not None, all=False)
        if not (signalled or agree(due, all=False)):
            return
        trainer.save_checkpoint(self.path)
        self._due = time.monotonic() + self.every
        if not signalled:
            return
        number, self._received = self._received, None
        if trainer.is_global_zero:
            name = signal.Signals(number).name if number else "another process"
            print(
                f"interrupted by {name} at step {trainer.global_step}; continue with "
                f"resume={self.path.parent.parent}",
                file=sys.stderr,
            )
        if number is None:
            raise SystemExit(0)
        outer = self._outer[number]
        # For the default handler's KeyboardInterrupt, Lightning would exit with code 1.
        if not callable(outer) or outer is signal.default_int_handler:
            raise SystemExit(128 + number)
        outer(number, None)


class Pruning(pl.Callback):
    """Reports each validation to a search, and ends the run if the search prunes it.

    Args:
        trial: The search's trial for this run.
        monitor: The metric; higher is better.
    """

    def __init__(self, trial: Any, monitor: str) -> None:
        self.trial = trial
        self.monitor = monitor

    @classmethod
    def from_environment(cls, monitor: str) -> list["Pruning"]:
        """The callback for the search that started this process; an empty list without one."""
        if "DVAE_TRIAL" not in os.environ:
            return []
        import optuna

        study = optuna.load_study(study_name=None, storage=os.environ["DVAE_STUDY"])
        return [cls(optuna.trial.Trial(study, int(os.environ["DVAE_TRIAL"])), monitor)]

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Reports the metric, and asks the search whether to prune.

        Raises:
            PrunedError: If the search prunes the trial, because others are better at this epoch.
        """
        value, epoch = float(trainer.callback_metrics[self.monitor]), trainer.current_epoch
        self.trial.report(value, epoch)
        if self.trial.should_prune():
            raise PrunedError(
                f"{self.monitor} {value:.2f} after epoch {epoch + 1}: other trials are better"
            )
