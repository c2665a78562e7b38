"""What the data of all tasks offer."""

from abc import ABC, abstractmethod
from typing import Any

import pytorch_lightning as pl

from dvae.errors import UserError

__all__ = ["TaskData"]


class TaskData(pl.LightningDataModule, ABC):
    """Splits that training, validation and test iterate over.

    `train_dataloader` yields lists of batches, several optimizer steps at a time, and keeps its
    place in `state_dict`, so that a run can go on in the middle of an epoch.
    """

    @property
    def validates(self) -> bool:
        """Whether there is a validation split, apart from the test, to select by."""
        return True

    def check_processes(self, world_size: int) -> None:
        """Refuses a number of processes that cannot share the data.

        Raises:
            UserError: Always, unless a task overrides it.
        """
        raise UserError(f"trainer.devices: expected 1 with this task, found {world_size}")

    @abstractmethod
    def steps_per_epoch(self) -> int:
        """Optimizer steps in an epoch.

        Raises:
            UserError: If there is none.
        """

    @abstractmethod
    def eval_dataloader(self, split: str) -> Any:
        """Batches of a split ("train", "val" or "test") for evaluation."""
