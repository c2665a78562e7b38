"""Options of the estimators in `gumbel.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from dvae.estimators.options import EstimatorOptions
from dvae.options import Positive

if TYPE_CHECKING:
    from dvae.estimators.base import Estimator

__all__ = ["GumbelSoftmaxOptions", "STGumbelSoftmaxOptions"]


class GumbelSoftmaxOptions(EstimatorOptions):
    """See `dvae.estimators.gumbel.GumbelSoftmaxEstimator`."""

    name: Literal["gumbel_softmax"] = "gumbel_softmax"
    hard = False

    def build(self) -> Estimator:
        """Builds the estimator."""
        from dvae.estimators.gumbel import GumbelSoftmaxEstimator

        return GumbelSoftmaxEstimator()


class STGumbelSoftmaxOptions(EstimatorOptions):
    """See `dvae.estimators.gumbel.STGumbelSoftmax`."""

    name: Literal["st_gumbel_softmax"] = "st_gumbel_softmax"
    backward_temperature: Positive | None = None

    def build(self) -> Estimator:
        """Builds the estimator."""
        from dvae.estimators.gumbel import STGumbelSoftmax

        return STGumbelSoftmax(self.backward_temperature)
