"""Options of temperature schedules; see `dvae.schedules` for the formulas."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Literal, Self

from pydantic import model_validator

from dvae.errors import UserError
from dvae.options import Count, NonNegative, Positive, Steps, count_hint
from dvae.schedules import Constant, Cosine, Exponential, Linear, Schedule, resolve_steps
from dvae.training.options import TemperatureOptions

__all__ = [
    "ConstantTemperature",
    "CosineTemperature",
    "ExponentialTemperature",
    "LinearTemperature",
    "NoTemperature",
]


_NEAR = 0.05
"""Share of the way to the minimum that may be missing at the end of a run."""


class NoTemperature(TemperatureOptions):
    """For estimators that have no temperature."""

    name: Literal["none"] = "none"

    def schedule(self, total_steps: int) -> None:
        """None: there is no temperature."""


class _Temperature(TemperatureOptions):
    initial: Positive = 1.0

    @property
    def start(self) -> float:
        """The initial temperature."""
        return self.initial


class ConstantTemperature(_Temperature):
    """The initial temperature at every step."""

    name: Literal["constant"] = "constant"

    def schedule(self, total_steps: int) -> Schedule:
        """The schedule; see `TemperatureOptions.schedule`."""
        return Constant(self.initial)


class _Annealed(_Temperature):
    """A temperature that falls from its initial value to a minimum."""

    minimum: Positive = 0.2
    update_every: Count = 1

    @model_validator(mode="after")
    def _check_minimum(self) -> Self:
        if self.minimum > self.initial:
            raise UserError(
                f"temperature.minimum: expected at most temperature.initial={self.initial}, "
                f"found {self.minimum}"
            )
        return self

    @property
    @abstractmethod
    def pace(self) -> str:
        """The setting that says how fast τ falls, as key=value."""

    @abstractmethod
    def schedule(self, total_steps: int) -> Schedule:
        """The schedule; see `TemperatureOptions.schedule`."""

    def remarks(self, total_steps: int) -> list[str]:
        """A line if τ does not fall to its minimum over several steps of the run."""
        fall = self.initial - self.minimum
        if not fall:
            return [
                f"temperature: stays at {self.initial:g}, because temperature.minimum equals "
                "temperature.initial"
            ]
        schedule = self.schedule(total_steps)
        # Without holding, the step after the last one is where steps=1.0 ends.
        end = total_steps - (self.update_every > 1)
        first, second, last = schedule(0), schedule(1), schedule(end)
        hint = ""
        if first == last:
            what = f"stays at {first:g}"
        elif total_steps > 1 and math.isclose(second, self.minimum):
            what = f"is at its minimum of {self.minimum:g} after one step"
            hint = count_hint(getattr(self, "steps", None) or 0)
        elif last - self.minimum > _NEAR * fall:
            what = f"ends at {last:.3g}, above temperature.minimum={self.minimum:g}"
        else:
            return []
        held = f" with temperature.update_every={self.update_every}" * (self.update_every > 1)
        return [
            f"temperature: {what}, in {total_steps:,} steps, because of {self.pace}{held}{hint}"
        ]


class ExponentialTemperature(_Annealed):
    """See `dvae.schedules.Exponential`: decay by a rate per step, or over a number of steps."""

    name: Literal["exponential"] = "exponential"
    rate: NonNegative | None = None
    steps: Steps | None = 1.0

    @model_validator(mode="after")
    def _check_decay(self) -> Self:
        if (self.rate is None) == (self.steps is None):
            raise UserError(
                "temperature.rate, temperature.steps: expected a number for one and null for the "
                f"other, found {self.rate} and {self.steps}"
            )
        return self

    @property
    def pace(self) -> str:
        """See `_Annealed`."""
        name = "steps" if self.rate is None else "rate"
        return f"temperature.{name}={getattr(self, name)}"

    def schedule(self, total_steps: int) -> Schedule:
        """The schedule; see `TemperatureOptions.schedule`."""
        if self.rate is not None:
            return Exponential(self.initial, self.minimum, self.update_every, float(self.rate))
        steps = resolve_steps(self.steps or 0, total_steps)
        return Exponential.over(self.initial, self.minimum, steps, self.update_every)


class _Ramp(_Annealed):
    steps: Steps = 1.0

    @property
    def pace(self) -> str:
        """See `_Annealed`."""
        return f"temperature.steps={self.steps}"


class LinearTemperature(_Ramp):
    """See `dvae.schedules.Linear`."""

    name: Literal["linear"] = "linear"

    def schedule(self, total_steps: int) -> Schedule:
        """The schedule; see `TemperatureOptions.schedule`."""
        steps = resolve_steps(self.steps, total_steps)
        return Linear(self.initial, self.minimum, self.update_every, steps)


class CosineTemperature(_Ramp):
    """See `dvae.schedules.Cosine`."""

    name: Literal["cosine"] = "cosine"

    def schedule(self, total_steps: int) -> Schedule:
        """The schedule; see `TemperatureOptions.schedule`."""
        steps = resolve_steps(self.steps, total_steps)
        return Cosine(self.initial, self.minimum, self.update_every, steps)
