"""Training steps in an environment, and episodes for evaluation."""

from collections.abc import Iterator
from itertools import islice

import torch
from torch import Tensor

from dvae.data.base import TaskData
from dvae.data.loader import BatchGroups

__all__ = ["EpisodeData", "StepNumbers"]


class StepNumbers:
    """Iterates over the numbers of an epoch's steps.

    Args:
        steps: Steps in an epoch.
    """

    # Steps are counted in order, so there is nothing to shuffle.
    sampler = None

    def __init__(self, steps: int) -> None:
        self._steps = steps

    def batches(self, start: int = 0) -> Iterator[int]:
        """The numbers from `start` on."""
        yield from islice(range(self._steps), start, None)

    def __len__(self) -> int:
        return self._steps


class EpisodeNumbers:
    """Iterates over one batch with the numbers of all episodes, which are played at once.

    Args:
        episodes: Number of episodes.
    """

    def __init__(self, episodes: int) -> None:
        self._episodes = episodes

    def __iter__(self) -> Iterator[Tensor]:
        yield torch.arange(self._episodes)

    def __len__(self) -> int:
        return 1


class EpisodeData(TaskData):
    """Numbers of steps for training, and numbers of episodes for evaluation.

    Args:
        steps: Environment steps in an epoch; there are as many optimizer steps.
        validation: Episodes of a validation.
        test: Episodes of a test.
        steps_per_call: Steps in one call of `training_step`.
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
        """Lists of step numbers, one list per call of `training_step`."""
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
