"""A replay memory for steps in an environment."""

from typing import Any

import torch
from torch import Tensor

from dvae.randomness import keyed_generator
from dvae.tasks.policy.model import Transitions

__all__ = ["Replay"]


class Replay:
    """Keeps the latest steps, and draws batches from them, reproducible from a key.

    Args:
        capacity: Most steps that are kept; new steps replace the oldest.
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
        """Most steps that are kept."""
        return len(self._steps.actions)

    def add(self, step: Transitions) -> None:
        """Stores one step, whose values have no batch axis."""
        for kept, value in zip(self._steps, step, strict=True):
            kept[self._next] = value
        self._next = (self._next + 1) % self.capacity
        self.size = min(self.size + 1, self.capacity)

    def draw(self, batch_size: int, *key: int) -> Transitions:
        """Draws steps uniformly, with replacement.

        Args:
            batch_size: Number of steps.
            *key: Non-negative integers that seed the draw.
        """
        index = torch.randint(self.size, (batch_size,), generator=keyed_generator("replay", *key))
        return Transitions(*(kept.index_select(0, index) for kept in self._steps))

    def state_dict(self) -> dict[str, Any]:
        """The stored steps, and the position of the next one, as tensors and plain values."""
        # Clone, because saving a view would write the whole memory.
        steps: dict[str, Tensor] = {
            name: kept[: self.size].clone() for name, kept in self._steps._asdict().items()
        }
        return {"next": self._next, "steps": steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores stored steps.

        Raises:
            ValueError: If they do not fit.
        """
        steps, place = state["steps"], state["next"]
        size = len(steps["actions"])
        if size > self.capacity:
            raise ValueError(f"replay: expected at most {self.capacity} steps, found {size}")
        # Until the memory is full, steps are added at its end.
        places = range(self.capacity) if size == self.capacity else range(size, size + 1)
        if place not in places:
            expected = f"{places.start} to {places.stop - 1}"
            raise ValueError(f"replay: expected the next step at {expected}, found {place}")
        for name, kept in self._steps._asdict().items():
            if steps[name].shape != kept[:size].shape or steps[name].dtype != kept.dtype:
                raise ValueError(
                    f"replay: expected {name} of shape {tuple(kept[:size].shape)} and type "
                    f"{kept.dtype}, found {tuple(steps[name].shape)} and {steps[name].dtype}"
                )
            kept[:size] = steps[name]
        self.size, self._next = size, place
