"""Options of the estimators in `score_function.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from dvae.estimators.options import EstimatorOptions
from dvae.options import Fraction

if TYPE_CHECKING:
    from dvae.estimators.base import Estimator

__all__ = ["RLOOOptions", "ReinforceOptions"]


class ReinforceOptions(EstimatorOptions):
    """See `dvae.estimators.score_function.Reinforce`."""

    name: Literal["reinforce"] = "reinforce"
    uses_temperature = False
    score_function = True
    decay: Fraction | None = 0.99

    def build(self) -> Estimator:
        """Builds the estimator."""
        from dvae.estimators.score_function import Reinforce

        return Reinforce(self.decay)


class RLOOOptions(EstimatorOptions):
    """See `dvae.estimators.score_function.RLOO`."""

    name: Literal["rloo"] = "rloo"
    uses_temperature = False
    score_function = True
    num_samples: Annotated[int, Field(ge=2)] = 4

    def build(self) -> Estimator:
        """Builds the estimator."""
        from dvae.estimators.score_function import RLOO

        return RLOO(self.num_samples)
