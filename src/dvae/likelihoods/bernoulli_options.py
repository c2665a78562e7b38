"""Options of the likelihood in `bernoulli.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from dvae.likelihoods.options import LikelihoodOptions

if TYPE_CHECKING:
    from dvae.likelihoods.base import Likelihood

__all__ = ["BernoulliOptions"]


class BernoulliOptions(LikelihoodOptions):
    """See `dvae.likelihoods.bernoulli.Bernoulli`."""

    name: Literal["bernoulli"] = "bernoulli"
    pixels = "binary"

    def build(self) -> Likelihood:
        """Builds the likelihood."""
        from dvae.likelihoods.bernoulli import Bernoulli

        return Bernoulli()
