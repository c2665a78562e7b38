"""Options of the estimators in `straight_through.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from dvae.estimators.options import EstimatorOptions
from dvae.options import NonNegative

if TYPE_CHECKING:
    from dvae.estimators.base import Estimator

__all__ = [
    "GappedSTOptions",
    "ReinMaxCVOptions",
    "ReinMaxOptions",
    "StraightThroughOptions",
    "ZGROptions",
]


class StraightThroughOptions(EstimatorOptions):
    """See `dvae.estimators.straight_through.StraightThrough`."""

    name: Literal["straight_through"] = "straight_through"
    uses_temperature = False

    def build(self) -> Estimator:
        """Builds the estimator."""
        from dvae.estimators.straight_through import StraightThrough

        return StraightThrough()


class GappedSTOptions(EstimatorOptions):
    """See `dvae.estimators.straight_through.GappedST`."""

    name: Literal["gapped_st"] = "gapped_st"
    gap: NonNegative = 1.0

    def build(self) -> Estimator:
        """Builds the estimator."""
        from dvae.estimators.straight_through import GappedST

        return GappedST(self.gap)


class ReinMaxOptions(EstimatorOptions):
    """See `dvae.estimators.straight_through.ReinMax`."""

    name: Literal["reinmax"] = "reinmax"

    def build(self) -> Estimator:
        """Builds the estimator."""
        from dvae.estimators.straight_through import ReinMax

        return ReinMax()


class ReinMaxCVOptions(EstimatorOptions):
    """See `dvae.estimators.straight_through.ReinMaxCV`."""

    name: Literal["reinmax_cv"] = "reinmax_cv"
    weight: NonNegative = 1.0

    def build(self) -> Estimator:
        """Builds the estimator."""
        from dvae.estimators.straight_through import ReinMaxCV

        return ReinMaxCV(self.weight)


class ZGROptions(EstimatorOptions):
    """See `dvae.estimators.straight_through.ZGR`."""

    name: Literal["zgr"] = "zgr"
    uses_temperature = False

    def build(self) -> Estimator:
        """Builds the estimator."""
        from dvae.estimators.straight_through import ZGR

        return ZGR()
