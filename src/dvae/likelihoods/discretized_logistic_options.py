"""Options of the likelihood in `discretized_logistic.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from dvae.likelihoods.options import LikelihoodOptions

if TYPE_CHECKING:
    from dvae.likelihoods.base import Likelihood

__all__ = ["DiscretizedLogisticOptions"]


class DiscretizedLogisticOptions(LikelihoodOptions):
    """See `dvae.likelihoods.discretized_logistic.DiscretizedLogistic`."""

    name: Literal["discretized_logistic"] = "discretized_logistic"
    pixels = "8-bit"

    def build(self) -> Likelihood:
        """Builds the likelihood."""
        from dvae.likelihoods.discretized_logistic import DiscretizedLogistic

        return DiscretizedLogistic()
