"""Options of the likelihood in `logistic_mixture.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from dvae.likelihoods.options import LikelihoodOptions
from dvae.options import Count

if TYPE_CHECKING:
    from dvae.likelihoods.base import Likelihood

__all__ = ["LogisticMixtureOptions"]


class LogisticMixtureOptions(LikelihoodOptions):
    """See `dvae.likelihoods.logistic_mixture.LogisticMixture`.

    Attributes:
        num_mixtures: Components of the mixture.
    """

    name: Literal["logistic_mixture"] = "logistic_mixture"
    pixels = "8-bit"
    num_mixtures: Count = 10

    def build(self) -> Likelihood:
        """Builds the likelihood."""
        from dvae.likelihoods.logistic_mixture import LogisticMixture

        return LogisticMixture(self.num_mixtures)
