"""What the options of every likelihood declare."""

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
        name: Its name in configurations.
    """

    name: str = ""

    @abstractmethod
    def build(self) -> Likelihood:
        """The likelihood with these options."""
