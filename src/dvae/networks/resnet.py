"""Residual convolutional networks with a grid of codes and a codebook."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, interpolate

from dvae.networks.base import Decoder, FeatureEncoder, PreciseLinear, activate, pad_to_multiple
from dvae.networks.groups import places_of

__all__ = ["CodePlanes", "ResNetDecoder", "ResNetEncoder", "Trunk"]


class _Block(nn.Module):
    """x + f(x), where f is twice normalization, activation and a convolution.

    The first convolution is 3 × 3 and halves the channels, the second is 1 × 1.
    """

    def __init__(self, channels: int, activation: str, normalization: str) -> None:
        super().__init__()
        inner, bias = max(1, channels // 2), normalization != "batch"
        self.body = nn.Sequential(
            activate(channels, activation, normalization, conv=True),
            nn.Conv2d(channels, inner, 3, padding=1, bias=bias),
            activate(inner, activation, normalization, conv=True),
            nn.Conv2d(inner, channels, 1, bias=bias),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


@dataclass(frozen=True)
class Trunk:
    """A 3 × 3 convolution, residual blocks, and a last normalization and activation.

    Attributes:
        channels: Channels of the residual blocks.
        blocks: Residual blocks.
        activation: A name in `dvae.networks.options.ACTIVATIONS`.
        normalization: "none", "batch" or "layer".
    """

    channels: int
    blocks: int
    activation: str
    normalization: str

    def build(self, inputs: int) -> nn.Sequential:
        """The network: (B, inputs, rows, columns) → (B, channels, rows, columns)."""
        options = (self.channels, self.activation, self.normalization)
        return nn.Sequential(
            nn.Conv2d(inputs, self.channels, 3, padding=1, bias=self.normalization != "batch"),
            *(_Block(*options) for _ in range(self.blocks)),
            activate(*options, conv=True),
        )


class ResNetEncoder(FeatureEncoder):
    """Patches of d × d pixels become channels; residual blocks then work on the grid of codes.

    Pre-activation blocks as in the dVAE of DALL-E. All blocks work at the low resolution, where a
    CPU is fastest, in place of the paper's groups of blocks with pooling between them. Images whose
    sides are no multiples of d are padded inside.

    Args:
        image_channels: C.
        num_categories: K, at least 2.
        downsample: d, the side of the patch that each code stands for.
        trunk: The residual network.

    References:
        Ramesh et al. 2021 (DALL-E), arXiv 2102.12092, appendix A.
    """

    def __init__(
        self,
        image_channels: int,
        num_categories: int,
        *,
        downsample: int,
        trunk: Trunk,
    ) -> None:
        super().__init__()
        inputs = image_channels * downsample**2
        self.patches = nn.PixelUnshuffle(downsample)
        self.body = trunk.build(inputs)
        self.head = PreciseLinear(trunk.channels, num_categories)

    def features(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) → features on the grid of codes, (B, D, rows, columns)."""
        return self.body(self.patches(pad_to_multiple(images, self.patches.downscale_factor)))

    def to_logits(self, features: Tensor) -> Tensor:
        """Features (B, D, rows, columns) → logits (B, N, K), row by row of the grid."""
        return self.head(features.permute(0, 2, 3, 1).flatten(1, 2))


class CodePlanes(nn.Module):
    """Codes of levels of grids → the sum of their vectors at each place of a finer grid.

    Each level has a codebook of its own. Each vector of a coarser grid is repeated for the places
    below it.

    Args:
        grids: Grid of each level, in the order of their codes.
        grid: The finer grid, (rows, columns).
        num_categories: K.
        width: D, the length of the vectors.
    """

    def __init__(
        self,
        grids: Sequence[Sequence[int]],
        grid: Sequence[int],
        num_categories: int,
        width: int,
    ) -> None:
        super().__init__()
        self.codebooks = nn.ParameterList(torch.randn(num_categories, width) for _ in grids)
        self._places = places_of([math.prod(level) for level in grids])
        self._grids = [tuple(level) for level in grids]
        self._grid = tuple(grid)
        # Sides are halved and rounded up, so that a power of 2 covers the finer grid.
        ratios = [
            max(-(-fine // side) for fine, side in zip(grid, level, strict=True)) for level in grids
        ]
        self._scales = [2 ** (ratio - 1).bit_length() for ratio in ratios]

    def forward(self, codes: Tensor) -> Tensor:
        """One-hot or relaxed (..., N, K), or integers (..., N) → (..., D, rows, columns)."""
        levels = []
        parts = zip(self.codebooks, self._places, self._grids, self._scales, strict=True)
        for codebook, place, grid, scale in parts:
            if codes.is_floating_point():
                vectors = codes[..., place, :] @ codebook
            else:
                vectors = embedding(codes[..., place], codebook)
            planes = interpolate(_planes(vectors, grid), scale_factor=scale, mode="nearest")
            planes = planes[..., : self._grid[0], : self._grid[1]]
            levels.append(planes.reshape(*vectors.shape[:-2], *planes.shape[1:]))
        return torch.stack(levels).sum(0) if len(levels) > 1 else levels[0]


class ResNetDecoder(Decoder):
    """Mirror of `ResNetEncoder`: codes become vectors of a codebook, and channels become patches.

    The vectors are z times a K × D matrix, which is the same for one-hot and relaxed z. Integer
    codes are looked up.

    Args:
        parameter_shape: Shape of the parameters of an image, (P, H, W).
        grids: Codes from top to bottom and from left to right, whose product is N; for a hierarchy,
            the grid of each level that it reads, with the one next to the image last.
        num_categories: K, at least 2.
        embedding_dim: D.
        downsample: d, the side of the patch that each code stands for.
        trunk: The residual network.

    Attributes:
        codebook: (K, D).
    """

    shared_codebook = True

    def __init__(
        self,
        parameter_shape: Sequence[int],
        grids: Sequence[Sequence[int]],
        num_categories: int,
        *,
        embedding_dim: int,
        downsample: int,
        trunk: Trunk,
    ) -> None:
        super().__init__()
        outputs, height, width = parameter_shape
        # No `weight`, so that weight decay leaves it alone.
        self.codebook = nn.Parameter(torch.randn(num_categories, embedding_dim))
        self.body = trunk.build(embedding_dim)
        self.head = nn.Conv2d(trunk.channels, outputs * downsample**2, 3, padding=1, bias=False)
        self.patches = nn.PixelShuffle(downsample)
        *above, self._grid = [tuple(grid) for grid in grids]
        self.above = CodePlanes(above, self._grid, num_categories, embedding_dim) if above else None
        self._places = places_of([math.prod(grid) for grid in grids])
        self._size = (height, width)

    def forward(self, z: Tensor) -> Tensor:
        """Codes (..., N, K) → parameters (..., P, H, W)."""
        own = z[..., self._places[-1], :] @ self.codebook
        return self._decode(own, None if self.above is None else self.above(z))

    def decode_codes(self, codes: Tensor, num_categories: int, dtype: torch.dtype) -> Tensor:
        """Integer codes (..., N) → parameters (..., P, H, W), by a look-up."""
        own = embedding(codes[..., self._places[-1]], self.codebook)
        return self._decode(own, None if self.above is None else self.above(codes))

    def _decode(self, vectors: Tensor, above: Tensor | None = None) -> Tensor:
        """Vectors of the codebook (..., N, D) → parameters (..., P, H, W)."""
        planes = _planes(vectors, self._grid)
        if above is not None:
            planes = planes + above.flatten(0, -4)
        parameters = self.patches(self.head(self.body(planes)))
        parameters = parameters[..., : self._size[0], : self._size[1]]
        return parameters.reshape(*vectors.shape[:-2], *parameters.shape[1:])


def _planes(vectors: Tensor, grid: Sequence[int]) -> Tensor:
    """(..., rows · columns, D) → (M, D, rows, columns)."""
    # In memory the channels stay last, as convolutions like it.
    return vectors.reshape(-1, *grid, vectors.shape[-1]).permute(0, 3, 1, 2)
