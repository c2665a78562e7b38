"""Grids of codes that are drawn in groups, and levels of grids."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from dvae.networks.base import FeatureEncoder, PreciseLinear, pad_to_multiple
from dvae.networks.groups import GroupedEncoder, places_of
from dvae.networks.resnet import CodePlanes, ResNetEncoder, Trunk

__all__ = ["GridNetwork", "GroupedGridEncoder", "LadderGridEncoder", "PyramidEncoder"]


class GroupedGridEncoder(GroupedEncoder):
    """A grid of codes, whose groups are bands of rows, or parts of rows.

    The correction is a residual convolutional network, which all groups share; codes that are not
    drawn yet are zeros.

    Args:
        encoder: See `GroupedEncoder`.
        grid: Codes from top to bottom and from left to right; N is their product.
        num_categories: K.
        groups: G, a divisor of N.
        trunk: The residual network, with as many channels as the encoder's.
    """

    def __init__(
        self,
        encoder: ResNetEncoder,
        grid: Sequence[int],
        num_categories: int,
        *,
        groups: int,
        trunk: Trunk,
    ) -> None:
        super().__init__(encoder, [grid[0] * grid[1] // groups] * groups)
        # z times a K × D matrix, as in the decoder.
        self.codes = nn.Linear(num_categories, trunk.channels, bias=False)
        self.body = trunk.build(trunk.channels)
        self.head = PreciseLinear(trunk.channels, num_categories)
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


class GridNetwork(nn.Module):
    """Codes of levels above, and features of an image if there are any → logits of a level.

    Args:
        above: Grid of each level that it reads, in the order of their codes.
        grid: Grid of the level whose logits it returns.
        num_categories: K.
        trunk: The residual network, with as many channels as the encoder's.
    """

    def __init__(
        self,
        above: Sequence[Sequence[int]],
        grid: Sequence[int],
        num_categories: int,
        *,
        trunk: Trunk,
    ) -> None:
        super().__init__()
        self.read = CodePlanes(above, grid, num_categories, trunk.channels)
        self.body = trunk.build(trunk.channels)
        self.head = PreciseLinear(trunk.channels, num_categories)

    def forward(self, z: Tensor, features: Tensor | None = None) -> Tensor:
        """Codes (..., n', K), features (B, D, rows, columns) → logits (..., n, K)."""
        planes = self.read(z)
        if features is not None:
            planes = planes + features
        hidden = self.body(planes.flatten(0, -4)).permute(0, 2, 3, 1).flatten(1, 2)
        logits = self.head(hidden)
        return logits.reshape(*planes.shape[:-3], *logits.shape[-2:])


class PyramidEncoder(FeatureEncoder):
    """Features and logits for levels of grids; each has half the rows and columns of the one below.

    2 × 2 features of a level become channels of the next one, as pixels do in the encoder. Features
    and logits are in the order of generation: those of the top level come first.

    Args:
        encoder: The encoder of the level next to the image.
        grids: Grid of each level, from the top to the image.
        num_categories: K.
        trunk: The residual network, with as many channels as the encoder's.
    """

    def __init__(
        self,
        encoder: ResNetEncoder,
        grids: Sequence[Sequence[int]],
        num_categories: int,
        *,
        trunk: Trunk,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.halve = nn.PixelUnshuffle(2)
        self.bodies = nn.ModuleList(trunk.build(4 * trunk.channels) for _ in grids[1:])
        self.heads = nn.ModuleList(PreciseLinear(trunk.channels, num_categories) for _ in grids[1:])
        self._places = places_of([math.prod(grid) for grid in grids])

    def features(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) → features of all levels, (B, D, N)."""
        levels = [self.encoder.features(images)]
        for body in self.bodies:
            levels.append(body(self.halve(pad_to_multiple(levels[-1], 2))))
        return torch.cat([level.flatten(2) for level in levels[::-1]], -1)

    def to_logits(self, features: Tensor) -> Tensor:
        """Features (B, D, N) → logits (B, N, K)."""
        rows = features.transpose(1, 2)
        heads = [*list(self.heads)[::-1], self.encoder.head]
        parts = [head(rows[:, at]) for head, at in zip(heads, self._places, strict=True)]
        return torch.cat(parts, 1)


class LadderGridEncoder(GroupedEncoder):
    """Levels of grids: inference goes up without draws, and down with them.

    Args:
        encoder: Features and logits of all levels.
        grids: Grid of each level, from the top to the image.
        networks: For each level but the top, a network that reads the codes of all levels above,
            and features.

    References:
        Sønderby et al. 2016, arXiv 1602.02282; Razavi et al. 2019 (VQ-VAE-2), arXiv 1906.00446.
    """

    def __init__(
        self,
        encoder: PyramidEncoder,
        grids: Sequence[Sequence[int]],
        networks: Sequence[GridNetwork],
    ) -> None:
        super().__init__(encoder, [math.prod(grid) for grid in grids])
        self.networks = nn.ModuleList(networks)
        self._grids = [tuple(grid) for grid in grids]

    def correction(self, group: int, z: Tensor, features: Tensor) -> Tensor:
        """What codes drawn before add to the logits of a level; see `GroupedEncoder`."""
        own = features[..., self.places[group]].unflatten(-1, self._grids[group])
        return self.networks[group - 1](z, own)
