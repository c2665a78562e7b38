"""Small convolutional networks."""

import math
from collections.abc import Sequence

from torch import Tensor, nn

from dvae.networks.base import (
    CodeMap,
    Decoder,
    activate,
    linear_blocks,
    pad_to_multiple,
    padded,
)
from dvae.networks.flat import FlatEncoder

__all__ = ["ConvDecoder", "ConvEncoder"]

_CHANNELS = (32, 64)
"""Channels after each of the two convolutions of stride 2."""
_STRIDE = 4
"""Of both convolutions together. Images whose sides are no multiples of it are padded inside."""


class ConvEncoder(FlatEncoder):
    """Two convolutions of stride 2 (32 and 64 channels), then one hidden linear layer.

    Args:
        image_shape: Shape of an image, (C, H, W).
        num_latents: N, at least 1.
        num_categories: K, at least 2.
        hidden: Width of the hidden linear layer.
        activation: A name in `dvae.networks.options.ACTIVATIONS`.
        normalization: "none", "batch" or "layer".
        dropout: Share of the hidden units of the linear layer that are left out in training.
        centered: See `FlatEncoder`.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        num_latents: int,
        num_categories: int,
        *,
        hidden: int,
        activation: str,
        normalization: str,
        dropout: float,
        centered: bool,
    ) -> None:
        channels, height, width = image_shape
        cells = (padded(height, _STRIDE) // _STRIDE) * (padded(width, _STRIDE) // _STRIDE)
        c1, c2 = _CHANNELS
        bias = normalization != "batch"
        body = nn.Sequential(
            nn.Conv2d(channels, c1, 4, stride=2, padding=1, bias=bias),
            activate(c1, activation, normalization, conv=True),
            nn.Conv2d(c1, c2, 4, stride=2, padding=1, bias=bias),
            activate(c2, activation, normalization, conv=True),
            nn.Flatten(),
            *linear_blocks([c2 * cells, hidden], activation, normalization, dropout),
        )
        super().__init__(body, hidden, num_latents, num_categories, centered=centered)

    def features(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) → features (B, D)."""
        return self.body(pad_to_multiple(images, _STRIDE))


class ConvDecoder(Decoder):
    """Mirror of `ConvEncoder`: codes (..., N, K) → parameters (..., P, H, W).

    Args:
        parameter_shape: Shape of the parameters of an image, (P, H, W).
        num_latents: N, at least 1.
        num_categories: K, at least 2.
        hidden: Width of the hidden linear layer.
        activation: A name in `dvae.networks.options.ACTIVATIONS`.
        normalization: "none", "batch" or "layer".
        dropout: Share of the hidden units of linear layers that are left out in training.
        code_map: How it reads codes; see `CodeMap`.
    """

    def __init__(
        self,
        parameter_shape: Sequence[int],
        num_latents: int,
        num_categories: int,
        *,
        hidden: int,
        activation: str,
        normalization: str,
        dropout: float,
        code_map: str,
    ) -> None:
        super().__init__()
        self.read = CodeMap(num_categories, code_map)
        channels, height, width = parameter_shape
        c1, c2 = _CHANNELS
        smallest = (c2, padded(height, _STRIDE) // _STRIDE, padded(width, _STRIDE) // _STRIDE)
        widths = [num_latents * self.read.width, hidden, math.prod(smallest)]
        self.body = nn.Sequential(
            *linear_blocks(widths, activation, normalization, dropout),
            nn.Unflatten(-1, smallest),
            nn.ConvTranspose2d(c2, c1, 4, stride=2, padding=1, bias=normalization != "batch"),
            activate(c1, activation, normalization, conv=True),
        )
        self.head = nn.ConvTranspose2d(c1, channels, 4, stride=2, padding=1, bias=False)
        self._size = (height, width)

    def forward(self, z: Tensor) -> Tensor:
        """Codes (..., N, K) → parameters (..., P, H, W)."""
        read = self.read(z)
        parameters = self.head(self.body(read.reshape(-1, read.shape[-1])))
        parameters = parameters[..., : self._size[0], : self._size[1]]
        return parameters.reshape(*z.shape[:-2], *parameters.shape[1:])
