"""The steps of a run in an environment, and the episodes that it is judged by."""

from collections.abc import Iterator
from itertools import islice

import torch
from torch import Tensor

from dvae.data.base import TaskData
from dvae.data.loader import BatchGroups

__all__ = ["EpisodeData", "StepNumbers"]

SPLITS = {"train": 0, "val": 1, "test": 2}
"""Keys of the starts of episodes: no split sees those of another."""


class StepNumbers:
    """Iterates over the numbers of the steps of an epoch.

    Args:
        steps: Steps of an epoch.
    """

    # The order is that of counting.
    sampler = None

    def __init__(self, steps: int) -> None:
        self._steps = steps

    def batches(self, start: int = 0) -> Iterator[int]:
        """The numbers from one of them on."""
        yield from islice(range(self._steps), start, None)

    def __len__(self) -> int:
        return self._steps


class EpisodeNumbers:
    """Iterates over one batch of all episodes, which are played beside each other.

    Args:
        episodes: How many.
    """

    def __init__(self, episodes: int) -> None:
        self._episodes = episodes

    def __iter__(self) -> Iterator[Tensor]:
        yield torch.arange(self._episodes)

    def __len__(self) -> int:
        return 1


class EpisodeData(TaskData):
    """Steps to train on, and numbers of episodes to be judged by.

    Args:
        steps: Environment steps, and optimizer steps, of an epoch.
        validation: Episodes of a validation.
        test: Episodes of a test.
        steps_per_call: Steps that are handed on at a time.
    """

    def __init__(self, steps: int, validation: int, test: int, steps_per_call: int = 1) -> None:
        super().__init__()
        self.steps = steps
        self.episodes = {"val": validation, "test": test, "train": test}
        self.steps_per_call = steps_per_call

    def steps_per_epoch(self) -> int:
        """Optimizer steps in an epoch."""
        return self.steps

    def train_dataloader(self) -> BatchGroups:
        """Numbers of steps, several at a time."""
        return BatchGroups(StepNumbers(self.steps), self.steps_per_call)

    def eval_dataloader(self, split: str) -> EpisodeNumbers:
        """The episodes of a split."""
        return EpisodeNumbers(self.episodes[split])

    def val_dataloader(self) -> EpisodeNumbers:
        """Episodes of the validation."""
        return self.eval_dataloader("val")

    def test_dataloader(self) -> EpisodeNumbers:
        """Episodes of the test."""
        return self.eval_dataloader("test")
