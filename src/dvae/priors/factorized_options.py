"""Options of the priors in `factorized.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from dvae.priors.options import PriorOptions

if TYPE_CHECKING:
    from dvae.priors.base import Prior

__all__ = ["LearnedPriorOptions", "UniformPriorOptions"]


class UniformPriorOptions(PriorOptions):
    """See `dvae.priors.factorized.UniformPrior`."""

    name: Literal["uniform"] = "uniform"

    def build(self, grid: Sequence[int], num_categories: int) -> Prior:
        """Builds the prior; see `PriorOptions.build`."""
        from dvae.priors.factorized import UniformPrior

        return UniformPrior(grid, num_categories)


class LearnedPriorOptions(PriorOptions):
    """See `dvae.priors.factorized.LearnedPrior`."""

    name: Literal["learned"] = "learned"

    def build(self, grid: Sequence[int], num_categories: int) -> Prior:
        """Builds the prior; see `PriorOptions.build`."""
        from dvae.priors.factorized import LearnedPrior

        return LearnedPrior(grid, num_categories)
