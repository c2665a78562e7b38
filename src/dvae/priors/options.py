"""Base class of the options of priors."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dvae.options import Options

if TYPE_CHECKING:
    from dvae.priors.base import Prior

__all__ = ["PriorOptions"]


class PriorOptions(Options):
    """The options of a prior.

    Attributes:
        name: Name in configurations.
    """

    name: str = ""

    @abstractmethod
    def build(self, grid: Sequence[int], num_categories: int) -> Prior:
        """Builds the prior.

        Args:
            grid: Shape of the grid of codes; N is its product.
            num_categories: K.
        """
