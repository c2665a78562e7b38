"""Grids of codes that are drawn in groups."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.functional import pad

from dvae.networks.base import PreciseLinear
from dvae.networks.groups import GroupedEncoder
from dvae.networks.resnet import ResNetEncoder, trunk

__all__ = ["GroupedGridEncoder"]


class GroupedGridEncoder(GroupedEncoder):
    """A grid of codes, whose groups are bands of rows, or parts of rows.

    The correction is a residual convolutional network, which all groups share; codes that are not
    drawn yet are zeros.

    Args:
        encoder: See `GroupedEncoder`.
        grid: Codes from top to bottom and from left to right; N is their product.
        num_categories: K.
        groups: G, a divisor of N.
        channels: Channels of the encoder's features.
        blocks: Residual blocks of the network.
        activation: A name in `dvae.networks.options.ACTIVATIONS`.
        normalization: "none", "batch" or "layer".
    """

    def __init__(
        self,
        encoder: ResNetEncoder,
        grid: Sequence[int],
        num_categories: int,
        *,
        groups: int,
        channels: int,
        blocks: int,
        activation: str,
        normalization: str,
    ) -> None:
        super().__init__(encoder, [grid[0] * grid[1] // groups] * groups)
        # z times a K × D matrix, as in the decoder.
        self.codes = nn.Linear(num_categories, channels, bias=False)
        self.body = trunk(channels, channels, blocks, activation, normalization)
        self.head = PreciseLinear(channels, num_categories)
        self._grid = tuple(grid)

    def correction(self, group: int, z: Tensor, features: Tensor) -> Tensor:
        """What codes drawn before add to the logits of a group; see `GroupedEncoder`."""
        rows, columns = self._grid
        codes = self.codes(pad(z, (0, 0, 0, rows * columns - z.shape[-2])))
        # (..., B, N, D) → (..., B, D, rows, columns)
        planes = codes.transpose(-1, -2).unflatten(-1, self._grid) + features
        hidden = self.body(planes.flatten(0, -4)).flatten(2).transpose(1, 2)
        logits = self.head(hidden[:, self.places[group]])
        return logits.reshape(*planes.shape[:-3], *logits.shape[-2:])
