"""Options of the estimators in `rao.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from dvae.estimators.options import EstimatorOptions
from dvae.options import Count

if TYPE_CHECKING:
    from dvae.estimators.base import Estimator

__all__ = ["GumbelRaoOptions", "ReinMaxRaoOptions"]


class GumbelRaoOptions(EstimatorOptions):
    """See `dvae.estimators.rao.GumbelRao`."""

    name: Literal["gumbel_rao"] = "gumbel_rao"
    num_relaxations: Count = 10

    def build(self) -> Estimator:
        """Builds the estimator."""
        from dvae.estimators.rao import GumbelRao

        return GumbelRao(self.num_relaxations)


class ReinMaxRaoOptions(EstimatorOptions):
    """See `dvae.estimators.rao.ReinMaxRao`."""

    name: Literal["reinmax_rao"] = "reinmax_rao"
    num_relaxations: Count = 10

    def build(self) -> Estimator:
        """Builds the estimator."""
        from dvae.estimators.rao import ReinMaxRao

        return ReinMaxRao(self.num_relaxations)
