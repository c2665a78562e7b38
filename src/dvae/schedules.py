"""Schedules: pure functions of the global step.

A schedule is a frozen dataclass without state, called as `schedule(step) -> float`: a resumed run
gets the same values as one that never stopped. The options classes check the ranges.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

__all__ = [
    "Constant",
    "Cosine",
    "Delayed",
    "Exponential",
    "Linear",
    "Schedule",
    "Warmup",
    "WarmupThen",
    "resolve_steps",
]


def resolve_steps(steps: int | float, total: int) -> int:
    """Turns a number of steps, given as a count or as a fraction of the run, into a count.

    Args:
        steps: A count of optimizer steps, an int >= 0, or a fraction of `total`, a float in [0, 1].
        total: Optimizer steps of the whole run.

    Example:
        >>> resolve_steps(0.5, 1000), resolve_steps(500, 1000)
        (500, 500)
    """
    return steps if isinstance(steps, int) else round(steps * total)


class Schedule(ABC):
    """A function from the global step, 0, 1, 2, …, to a value."""

    @abstractmethod
    def __call__(self, step: int) -> float:
        """The value at a global step."""


@dataclass(frozen=True)
class Constant(Schedule):
    """The same value at every step."""

    value: float

    def __call__(self, step: int) -> float:
        """The value at a global step."""
        return self.value


@dataclass(frozen=True)
class _Annealed(Schedule):
    """A value that falls from `initial` to `minimum` and changes every `update_every` steps.

    Attributes:
        initial: Value at step 0.
        minimum: Value at the end, at most `initial`.
        update_every: The step is rounded down to a multiple of this, at least 1.
    """

    initial: float
    minimum: float
    update_every: int = 1

    def _held(self, step: int) -> int:
        return step - step % self.update_every


@dataclass(frozen=True)
class Exponential(_Annealed):
    """max(minimum, initial · exp(−rate · step)).

    Attributes:
        rate: Decay per step, at least 0.

    References:
        Jang, Gu, Poole 2017, arXiv 1611.01144, appendix.

    Example:
        >>> schedule = Exponential(initial=1.0, minimum=0.5, rate=1e-4, update_every=1000)
        >>> schedule(0), schedule(999), schedule(10**6)
        (1.0, 1.0, 0.5)
    """

    rate: float = 1e-4

    @classmethod
    def over(
        cls, initial: float, minimum: float, steps: int, update_every: int = 1
    ) -> "Exponential":
        """The decay that reaches `minimum` after `steps` steps; needs `minimum` > 0."""
        return cls(initial, minimum, update_every, math.log(initial / minimum) / max(steps, 1))

    def __call__(self, step: int) -> float:
        """The value at a global step."""
        return max(self.minimum, self.initial * math.exp(-self.rate * self._held(step)))


@dataclass(frozen=True)
class _Ramp(_Annealed):
    """A value that reaches `minimum` after `steps` steps and stays there.

    Attributes:
        steps: Number of steps, at least 0; with 0 the value is `minimum` from the start.
    """

    steps: int = 1

    def _progress(self, step: int) -> float:
        return min(1.0, self._held(step) / self.steps) if self.steps else 1.0


@dataclass(frozen=True)
class Linear(_Ramp):
    """initial + (minimum − initial) · min(1, step / steps).

    Example:
        >>> [Linear(1.0, 0.5, steps=100)(step) for step in (0, 50, 100, 200)]
        [1.0, 0.75, 0.5, 0.5]
    """

    def __call__(self, step: int) -> float:
        """The value at a global step."""
        t = self._progress(step)
        return (1 - t) * self.initial + t * self.minimum


@dataclass(frozen=True)
class Cosine(_Ramp):
    """minimum + (initial − minimum) · (1 + cos(π · min(1, step / steps))) / 2.

    Example:
        >>> [round(Cosine(1.0, 0.5, steps=100)(step), 3) for step in (0, 50, 100, 200)]
        [1.0, 0.75, 0.5, 0.5]
    """

    def __call__(self, step: int) -> float:
        """The value at a global step."""
        t = (1 + math.cos(math.pi * self._progress(step))) / 2
        return t * self.initial + (1 - t) * self.minimum


@dataclass(frozen=True)
class Warmup(Schedule):
    """value · min(1, step / steps); `value` from the start if `steps` is 0."""

    value: float
    steps: int

    def __call__(self, step: int) -> float:
        """The value at a global step."""
        return self.value * min(1.0, step / self.steps) if self.steps else self.value


@dataclass(frozen=True)
class Delayed(Schedule):
    """`start` for the first `delay` steps, from where it rises to 1 at `total`, linearly.

    Example:
        >>> [Delayed(0.1, delay=50, total=100)(step) for step in (0, 50, 75, 100)]
        [0.1, 0.1, 0.55, 1.0]
    """

    start: float
    delay: int
    total: int

    def __call__(self, step: int) -> float:
        """The value at a global step."""
        if step <= self.delay:
            return self.start
        t = min(1.0, (step - self.delay) / max(1, self.total - self.delay))
        return (1 - t) * self.start + t


@dataclass(frozen=True)
class WarmupThen(Schedule):
    """A value that rises linearly and then follows another schedule.

    Attributes:
        peak: Value after the rise.
        warmup: Steps of the rise, during which the value is peak · (step + 1) / (warmup + 1).
        then: The schedule afterwards, whose step 0 is the first one after the rise.
    """

    peak: float
    warmup: int
    then: Schedule

    def __call__(self, step: int) -> float:
        """The value at a global step."""
        if step < self.warmup:
            return self.peak * (step + 1) / (self.warmup + 1)
        return self.then(step - self.warmup)
