"""Base class of the options of priors."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dvae.options import Options, Steps

if TYPE_CHECKING:
    from dvae.priors.base import Prior

__all__ = ["PriorOptions"]


class PriorOptions(Options):
    """The options of a prior.

    Attributes:
        name: Name in configurations.
    """

    name: str = ""

    @property
    def classes(self) -> int:
        """Classes that the codes may depend on, as a context of one-hot vectors; 0 for none."""
        return 0

    @property
    def encoder_delay(self) -> Steps | None:
        """Steps before the encoder adapts to it; None for what suits objective and codes."""
        return 0

    def check_grid(self, grid: Sequence[int]) -> None:
        """Checks that the prior fits a grid of codes; by default, it does.

        Raises:
            UserError: If it does not.
        """

    @abstractmethod
    def build(self, grid: Sequence[int], num_categories: int) -> Prior:
        """Builds the prior.

        Args:
            grid: Shape of the grid of codes; N is its product.
            num_categories: K.
        """
