"""Grids of codes that are drawn in groups."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from dvae.networks.base import Encoder, PreciseLinear
from dvae.networks.flat import places_of
from dvae.networks.resnet import ResNetEncoder, trunk

__all__ = ["GroupedGridEncoder"]


class GroupedGridEncoder(Encoder):
    """q(z|x) = Π_g q(z_g|x, z_<g) on a grid: the groups are bands of rows, or parts of rows.

    The logits are those of an encoder of the whole grid plus, from the second group on, those of a
    residual convolutional network that reads the encoder's features and the codes drawn so far. All
    groups share this network; codes that are not drawn yet are zeros.

    Args:
        encoder: An encoder of the whole grid.
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
        super().__init__()
        self.encoder = encoder
        # z times a K × D matrix, as in the decoder.
        self.codes = nn.Linear(num_categories, channels, bias=False)
        self.body = trunk(channels, channels, blocks, activation, normalization)
        self.head = PreciseLinear(channels, num_categories)
        self._grid = tuple(grid)
        size = grid[0] * grid[1] // groups
        self._places = places_of([size] * groups)

    @property
    def places(self) -> Sequence[slice]:
        """Row by row, from the first code to the last."""
        return self._places

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, C, H, W) → logits (B, N, K) without the network's part, and features."""
        features = self.encoder.features(images)
        return self.encoder.to_logits(features), features

    def logits(self, features: tuple[Tensor, Tensor], drawn: Sequence[Tensor]) -> Tensor:
        """The logits of the next group; see `Encoder.logits`."""
        place = self._places[len(drawn)]
        own = features[0][..., place, :]
        if not drawn:
            return own
        z = torch.cat(list(drawn), -2)
        codes = self.codes(pad(z, (0, 0, 0, features[0].shape[-2] - z.shape[-2])))
        # (..., B, N, D) → (..., B, D, rows, columns)
        planes = codes.transpose(-1, -2).unflatten(-1, self._grid) + features[1]
        hidden = self.body(planes.flatten(0, -4)).flatten(2).transpose(1, 2)[:, place]
        return own + self.head(hidden).reshape(*planes.shape[:-3], *own.shape[-2:])
