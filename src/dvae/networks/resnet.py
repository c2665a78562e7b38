"""Residual convolutional networks with a grid of codes and a codebook."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from dvae.networks.base import Decoder, FeatureEncoder, PreciseLinear, activate, pad_to_multiple

__all__ = ["ResNetDecoder", "ResNetEncoder", "trunk"]


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


def trunk(
    inputs: int, channels: int, blocks: int, activation: str, normalization: str
) -> nn.Sequential:
    """A 3 × 3 convolution, residual blocks, and a last normalization and activation."""
    return nn.Sequential(
        nn.Conv2d(inputs, channels, 3, padding=1, bias=normalization != "batch"),
        *(_Block(channels, activation, normalization) for _ in range(blocks)),
        activate(channels, activation, normalization, conv=True),
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
        channels: Channels of the residual blocks.
        blocks: Residual blocks.
        activation: A name in `dvae.networks.options.ACTIVATIONS`.
        normalization: "none", "batch" or "layer".

    References:
        Ramesh et al. 2021 (DALL-E), arXiv 2102.12092, appendix A.
    """

    def __init__(
        self,
        image_channels: int,
        num_categories: int,
        *,
        downsample: int,
        channels: int,
        blocks: int,
        activation: str,
        normalization: str,
    ) -> None:
        super().__init__()
        inputs = image_channels * downsample**2
        self.patches = nn.PixelUnshuffle(downsample)
        self.body = trunk(inputs, channels, blocks, activation, normalization)
        self.head = PreciseLinear(channels, num_categories)

    def features(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) → features on the grid of codes, (B, D, rows, columns)."""
        return self.body(self.patches(pad_to_multiple(images, self.patches.downscale_factor)))

    def to_logits(self, features: Tensor) -> Tensor:
        """Features (B, D, rows, columns) → logits (B, N, K), row by row of the grid."""
        return self.head(features.permute(0, 2, 3, 1).flatten(1, 2))


class ResNetDecoder(Decoder):
    """Mirror of `ResNetEncoder`: codes become vectors of a codebook, and channels become patches.

    The vectors are z times a K × D matrix, which is the same for one-hot and relaxed z. Integer
    codes are looked up.

    Args:
        parameter_shape: Shape of the parameters of an image, (P, H, W).
        grid: Codes from top to bottom and from left to right; N is their product.
        num_categories: K, at least 2.
        embedding_dim: D.
        downsample: d, the side of the patch that each code stands for.
        channels: Channels of the residual blocks.
        blocks: Residual blocks.
        activation: A name in `dvae.networks.options.ACTIVATIONS`.
        normalization: "none", "batch" or "layer".

    Attributes:
        codebook: (K, D).
    """

    shared_codebook = True

    def __init__(
        self,
        parameter_shape: Sequence[int],
        grid: Sequence[int],
        num_categories: int,
        *,
        embedding_dim: int,
        downsample: int,
        channels: int,
        blocks: int,
        activation: str,
        normalization: str,
    ) -> None:
        super().__init__()
        outputs, height, width = parameter_shape
        # No `weight`, so that weight decay leaves it alone.
        self.codebook = nn.Parameter(torch.randn(num_categories, embedding_dim))
        self.body = trunk(embedding_dim, channels, blocks, activation, normalization)
        self.head = nn.Conv2d(channels, outputs * downsample**2, 3, padding=1, bias=False)
        self.patches = nn.PixelShuffle(downsample)
        self._grid = tuple(grid)
        self._size = (height, width)

    def forward(self, z: Tensor) -> Tensor:
        """Codes (..., N, K) → parameters (..., P, H, W)."""
        return self._decode(z @ self.codebook)

    def decode_codes(self, codes: Tensor, num_categories: int, dtype: torch.dtype) -> Tensor:
        """Integer codes (..., N) → parameters (..., P, H, W), by a look-up."""
        return self._decode(embedding(codes, self.codebook))

    def _decode(self, vectors: Tensor) -> Tensor:
        """Vectors of the codebook (..., N, D) → parameters (..., P, H, W)."""
        leading, width = vectors.shape[:-2], vectors.shape[-1]
        # In memory the channels stay last, as convolutions like it.
        grid = vectors.reshape(-1, *self._grid, width).permute(0, 3, 1, 2)
        parameters = self.patches(self.head(self.body(grid)))
        parameters = parameters[..., : self._size[0], : self._size[1]]
        return parameters.reshape(*leading, *parameters.shape[1:])
