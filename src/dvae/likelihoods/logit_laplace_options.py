"""Options of the likelihood in `logit_laplace.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from dvae.likelihoods.options import LikelihoodOptions

if TYPE_CHECKING:
    from dvae.likelihoods.base import Likelihood

__all__ = ["LogitLaplaceOptions"]


class LogitLaplaceOptions(LikelihoodOptions):
    """See `dvae.likelihoods.logit_laplace.LogitLaplace`."""

    name: Literal["logit_laplace"] = "logit_laplace"
    pixels = "real"

    def build(self) -> Likelihood:
        """Builds the likelihood."""
        from dvae.likelihoods.logit_laplace import LogitLaplace

        return LogitLaplace()
