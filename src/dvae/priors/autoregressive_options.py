"""Options of the priors in `autoregressive.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from dvae.errors import UserError
from dvae.options import Count, Fraction, Size, Steps
from dvae.priors.options import PriorOptions

if TYPE_CHECKING:
    from dvae.priors.base import Prior

__all__ = ["AutoregressiveOptions"]

_WIDTHS = {"mlp": 512, "transformer": 128}
"""Width of each network, unless another is given."""


class AutoregressiveOptions(PriorOptions):
    """See `dvae.priors.autoregressive`.

    Attributes:
        network: "mlp" is `MaskedMLPPrior`, "transformer" is `TransformerPrior`; "auto" takes the
            transformer for codes with rows and columns, and the other for flat codes.
        width: Width of the hidden layers; None for 512 (mlp) or 128 (transformer).
        blocks: Residual blocks.
        heads: Heads of the transformer's attention.
        dropout: Probability that a hidden unit is dropped in training.
        num_classes: Classes that the codes may depend on; 0 for none.
        delay: Steps before the encoder adapts to this prior, which is fitted to its codes from the
            start; 0 for none, None for half of the run where the objective can do it. See
            `VAEOutput.with_prior_weight`.
    """

    name: Literal["autoregressive"] = "autoregressive"
    network: Literal["auto", "mlp", "transformer"] = "auto"
    width: Count | None = None
    blocks: Count = 1
    heads: Count = 4
    dropout: Fraction = 0.0
    num_classes: Size = 0
    delay: Steps | None = None

    @property
    def classes(self) -> int:
        """`num_classes`; see `PriorOptions.classes`."""
        return self.num_classes

    @property
    def encoder_delay(self) -> Steps | None:
        """`delay`; see `PriorOptions.encoder_delay`."""
        return self.delay

    def check_grid(self, grid: Sequence[int]) -> None:
        """Checks the transformer's heads; see `PriorOptions.check_grid`."""
        width = self.width or _WIDTHS["transformer"]
        if self._network(grid) == "transformer" and width % self.heads:
            raise UserError(
                f"prior.heads: expected a divisor of the width {width}, found {self.heads}"
            )

    def _network(self, grid: Sequence[int]) -> str:
        """The network for codes of this grid."""
        if self.network != "auto":
            return self.network
        return "mlp" if len(grid) == 1 else "transformer"

    def build(self, grid: Sequence[int], num_categories: int) -> Prior:
        """Builds the prior; see `PriorOptions.build`."""
        from dvae.priors.autoregressive import MaskedMLPPrior, TransformerPrior

        network = self._network(grid)
        sizes: dict[str, Any] = {
            "width": self.width or _WIDTHS[network],
            "blocks": self.blocks,
            "dropout": self.dropout,
            "context_size": self.num_classes,
        }
        if network == "mlp":
            return MaskedMLPPrior(grid, num_categories, **sizes)
        return TransformerPrior(grid, num_categories, heads=self.heads, **sizes)
