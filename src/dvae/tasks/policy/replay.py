"""A memory of steps in an environment, in tensors."""

from typing import Any

import torch
from torch import Tensor

from dvae.randomness import keyed_generator
from dvae.tasks.policy.model import Transitions

__all__ = ["Replay"]


class Replay:
    """Keeps the last steps, and draws batches of them that are functions of their key.

    Args:
        capacity: The most steps that are kept; the oldest make room.
        num_observations: D.
    """

    def __init__(self, capacity: int, num_observations: int) -> None:
        self.size = 0
        self._next = 0
        self._steps = Transitions(
            torch.zeros(capacity, num_observations),
            torch.zeros(capacity, dtype=torch.int64),
            torch.zeros(capacity),
            torch.zeros(capacity, num_observations),
            torch.zeros(capacity),
        )

    @property
    def capacity(self) -> int:
        """The most steps that are kept."""
        return len(self._steps.actions)

    def add(self, step: Transitions) -> None:
        """Keeps one step, of values without a batch axis."""
        for kept, value in zip(self._steps, step, strict=True):
            kept[self._next] = value
        self._next = (self._next + 1) % self.capacity
        self.size = min(self.size + 1, self.capacity)

    def draw(self, batch_size: int, *key: int) -> Transitions:
        """Draws steps with replacement, each as likely.

        Args:
            batch_size: How many.
            *key: Non-negative integers on which the draw depends.
        """
        index = torch.randint(self.size, (batch_size,), generator=keyed_generator(*key))
        return Transitions(*(kept.index_select(0, index) for kept in self._steps))

    def state_dict(self) -> dict[str, Any]:
        """Steps that are kept, and where the next one goes, as tensors and plain values."""
        # Views would be written with all the memory behind them.
        steps: dict[str, Tensor] = {
            name: kept[: self.size].clone() for name, kept in self._steps._asdict().items()
        }
        return {"next": self._next, "steps": steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes steps over.

        Raises:
            ValueError: If they do not fit.
        """
        steps, place = state["steps"], state["next"]
        size = len(steps["actions"])
        if size > self.capacity or (place != size % self.capacity and size < self.capacity):
            raise ValueError(f"replay: expected at most {self.capacity} steps, found {size}")
        for name, kept in self._steps._asdict().items():
            if steps[name].shape != kept[:size].shape or steps[name].dtype != kept.dtype:
                raise ValueError(f"replay: expected {name} of shape {tuple(kept[:size].shape)}")
            kept[:size] = steps[name]
        self.size, self._next = size, place
