"""Options of the objectives in `objectives.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self

from pydantic import model_validator

from dvae.errors import UserError
from dvae.estimators import EstimatorOptions
from dvae.estimators.score_function_options import ReinforceOptions
from dvae.models.options import ObjectiveOptions
from dvae.options import Count

if TYPE_CHECKING:
    from dvae.models.objectives import Objective

__all__ = ["ELBOOptions", "IWAEOptions", "VIMCOOptions"]


class ELBOOptions(ObjectiveOptions):
    """See `dvae.models.objectives.ELBO`."""

    name: Literal["elbo"] = "elbo"
    num_samples: Count = 4

    def build(self) -> Objective:
        """Builds the objective."""
        from dvae.models.objectives import ELBO

        return ELBO(self.num_samples, self.prior_temperature, self.free_bits)


class _SeveralSamples(ObjectiveOptions):
    """An objective that needs at least two samples."""

    num_samples: Count = 5

    @model_validator(mode="after")
    def _check_samples(self) -> Self:
        if self.num_samples < 2:
            raise UserError(
                f"objective.num_samples: expected at least 2 with objective={self.name}, found "
                f"{self.num_samples}"
            )
        return self


class IWAEOptions(_SeveralSamples):
    """See `dvae.models.objectives.IWAE`."""

    name: Literal["iwae"] = "iwae"

    def check_estimator(self, estimator: EstimatorOptions) -> None:
        """Rejects score-function estimators; see `ObjectiveOptions`."""
        super().check_estimator(estimator)
        if estimator.score_function:
            raise UserError(
                "estimator: expected one whose gradient passes through the sample with "
                f"objective=iwae, found {estimator.name}; objective=vimco has a score-function "
                "gradient"
            )

    def build(self) -> Objective:
        """Builds the objective."""
        from dvae.models.objectives import IWAE

        return IWAE(self.num_samples, self.prior_temperature)


class VIMCOOptions(_SeveralSamples):
    """See `dvae.models.objectives.VIMCO`."""

    name: Literal["vimco"] = "vimco"

    def check_estimator(self, estimator: EstimatorOptions) -> None:
        """Accepts only `reinforce` without a baseline; see `ObjectiveOptions`."""
        super().check_estimator(estimator)
        found = estimator.name
        if isinstance(estimator, ReinforceOptions):
            found = "" if estimator.decay is None else f"estimator.decay={estimator.decay}"
        if found:
            raise UserError(
                "estimator: expected reinforce with estimator.decay=null with objective=vimco, "
                f"which has its own baseline, found {found}"
            )

    def build(self) -> Objective:
        """Builds the objective."""
        from dvae.models.objectives import VIMCO

        return VIMCO(self.num_samples, self.prior_temperature)
