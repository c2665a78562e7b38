"""Base class of the options of training objectives of a VAE."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Literal, Self

from pydantic import model_validator

from dvae.errors import UserError
from dvae.estimators import ESTIMATORS, EstimatorOptions
from dvae.options import Count, NonNegative, Options, Positive, Steps, count_hint
from dvae.schedules import Schedule, Warmup, resolve_steps

if TYPE_CHECKING:
    from dvae.models.objectives import Objective

__all__ = ["ObjectiveOptions"]


class ObjectiveOptions(Options):
    """The options of an objective; see `dvae.models.objectives.Objective`.

    Attributes:
        name: Name in configurations.
        beta: β, the weight on the rate in the training loss only, never in a reported bound.
        warmup: Steps over which β rises linearly from 0.
        num_samples: m, the number of codes drawn for each image.
        kl: "discrete" compares the categorical posterior and prior, "relaxed" their Concrete
            densities at the relaxed sample.
        prior_temperature: Temperature of the prior's Concrete density, with `kl="relaxed"` only.
        free_bits: Nats per image that each level's rate may have without a cost, with `elbo` and
            `kl="discrete"` only.
    """

    name: str = ""
    beta: NonNegative = 1.0
    warmup: Steps = 0.0
    num_samples: Count
    kl: Literal["discrete", "relaxed"] = "discrete"
    prior_temperature: Positive | None = None
    free_bits: NonNegative = 0.0

    @model_validator(mode="after")
    def _check_densities(self) -> Self:
        if (self.kl == "relaxed") == (self.prior_temperature is None):
            expected = "a number" if self.kl == "relaxed" else "null"
            raise UserError(
                f"objective.prior_temperature: expected {expected} with objective.kl={self.kl}, "
                f"found {self.prior_temperature}"
            )
        return self

    @property
    def mixes_priors(self) -> bool:
        """Whether the loss is linear in an analytic rate, so that p(z) may come in slowly."""
        return self.name == "elbo" and self.kl == "discrete"

    @model_validator(mode="after")
    def _check_free_bits(self) -> Self:
        if self.free_bits and not self.mixes_priors:
            raise UserError(
                "objective.free_bits: expected 0 unless objective=elbo and objective.kl=discrete, "
                f"found {self.free_bits}"
            )
        return self

    def check_estimator(self, estimator: EstimatorOptions) -> None:
        """Checks that this objective can be trained with an estimator.

        Raises:
            UserError: If it cannot.
        """
        if self.kl == "relaxed" and estimator.hard:
            relaxed = [name for name, kind in ESTIMATORS.items() if not kind.hard]
            raise UserError(
                f"estimator: expected {' or '.join(relaxed)} with objective.kl=relaxed, which "
                f"compares densities of relaxed samples, found {estimator.name}"
            )

    def beta_schedule(self, total_steps: int) -> Schedule:
        """β at each step of a run of `total_steps`."""
        return Warmup(self.beta, resolve_steps(self.warmup, total_steps))

    def remarks(self, total_steps: int) -> list[str]:
        """Lines on what may be unexpected in a run: β that does not rise over several steps."""
        steps, last = resolve_steps(self.warmup, total_steps), self.beta_schedule(total_steps)
        if steps > total_steps:
            what = f"ends at {last(total_steps):.3g}, below objective.beta={self.beta:g}"
        elif steps == 1 and total_steps > 1:
            what = f"is at objective.beta={self.beta:g} after one step"
        else:
            return []
        return [
            f"beta: {what}, in {total_steps:,} steps, because of objective.warmup={self.warmup}"
            f"{count_hint(self.warmup)}"
        ]

    @abstractmethod
    def build(self) -> Objective:
        """Builds the objective."""
