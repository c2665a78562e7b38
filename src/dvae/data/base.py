"""Base class of the data of all tasks."""

from abc import ABC, abstractmethod
from typing import Any

import pytorch_lightning as pl

from dvae.errors import UserError

__all__ = ["TaskData"]


class TaskData(pl.LightningDataModule, ABC):
    """Splits that training, validation and test iterate over.

    `train_dataloader` yields lists of batches, one batch per optimizer step. Its `state_dict` holds
    the position in the epoch, so that a run can resume in the middle of one.
    """

    @property
    def validates(self) -> bool:
        """Whether there is a validation split separate from the test split, to select models by."""
        return True

    @property
    def shades(self) -> bool:
        """Whether the data are images with more than black and white pixels."""
        return False

    def check_processes(self, world_size: int) -> None:
        """Checks that several processes can share the data.

        Raises:
            UserError: If they cannot; by default, always.
        """
        raise UserError(f"trainer.devices: expected 1 with this task, found {world_size}")

    @abstractmethod
    def steps_per_epoch(self) -> int:
        """Optimizer steps in an epoch.

        Raises:
            UserError: If an epoch has no step.
        """

    @abstractmethod
    def eval_dataloader(self, split: str) -> Any:
        """Batches of a split ("train", "val" or "test") for evaluation."""
