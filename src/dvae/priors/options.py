"""What the options of every prior declare."""

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
        name: Its name in configurations.
    """

    name: str = ""

    @abstractmethod
    def build(self, grid: Sequence[int], num_categories: int) -> Prior:
        """The prior with these options.

        Args:
            grid: Shape of the grid of codes; N is its product.
            num_categories: K.
        """
