"""Options of the estimator in `exact.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from dvae.estimators.options import EstimatorOptions

if TYPE_CHECKING:
    from dvae.estimators.base import Estimator

__all__ = ["ExactOptions"]


class ExactOptions(EstimatorOptions):
    """See `dvae.estimators.exact.Exact`."""

    name: Literal["exact"] = "exact"
    uses_temperature = False
    score_function = True
    enumerates = True

    def build(self) -> Estimator:
        """Builds the estimator."""
        from dvae.estimators.exact import Exact

        return Exact()
