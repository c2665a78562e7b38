"""Base class of the options of likelihoods."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from dvae.options import Options

if TYPE_CHECKING:
    from dvae.likelihoods.base import Likelihood

__all__ = ["LikelihoodOptions"]


class LikelihoodOptions(Options):
    """The options of a likelihood.

    Attributes:
        name: Name in configurations.
    """

    name: str = ""

    @abstractmethod
    def build(self) -> Likelihood:
        """Builds the likelihood."""
