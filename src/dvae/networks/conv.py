"""Small convolutional networks."""

from collections.abc import Sequence

from torch import Tensor, nn

from dvae.networks.base import (
    Decoder,
    Encoder,
    PreciseLinear,
    activate,
    linear_blocks,
    pad_to_multiple,
    padded,
)

__all__ = ["ConvDecoder", "ConvEncoder"]

_CHANNELS = (32, 64)
"""Channels after each of the two convolutions of stride 2."""
_STRIDE = 4
"""Of both convolutions together. Images whose sides are no multiples of it are padded inside."""


class ConvEncoder(Encoder):
    """Two convolutions of stride 2 (32 and 64 channels), then one hidden linear layer.

    Args:
        image_shape: Shape of an image, (C, H, W).
        num_latents: N, at least 1.
        num_categories: K, at least 2.
        hidden: Width of the hidden linear layer.
        activation: A name in `dvae.networks.options.ACTIVATIONS`.
        normalization: "none", "batch" or "layer".
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
    ) -> None:
        super().__init__()
        channels, height, width = image_shape
        cells = (padded(height, _STRIDE) // _STRIDE) * (padded(width, _STRIDE) // _STRIDE)
        c1, c2 = _CHANNELS
        bias = normalization != "batch"
        self.body = nn.Sequential(
            nn.Conv2d(channels, c1, 4, stride=2, padding=1, bias=bias),
            activate(c1, activation, normalization, conv=True),
            nn.Conv2d(c1, c2, 4, stride=2, padding=1, bias=bias),
            activate(c2, activation, normalization, conv=True),
            nn.Flatten(),
            *linear_blocks([c2 * cells, hidden], activation, normalization),
        )
        self.head = PreciseLinear(hidden, num_latents * num_categories)
        self._codes = (num_latents, num_categories)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) → logits (B, N, K)."""
        features = self.body(pad_to_multiple(images, _STRIDE))
        return self.head(features).unflatten(-1, self._codes)


class ConvDecoder(Decoder):
    """Mirror of `ConvEncoder`: codes (..., N, K) → parameters (..., P, H, W).

    Args:
        parameter_shape: Shape of the parameters of an image, (P, H, W).
        num_latents: N, at least 1.
        num_categories: K, at least 2.
        hidden: Width of the hidden linear layer.
        activation: A name in `dvae.networks.options.ACTIVATIONS`.
        normalization: "none", "batch" or "layer".
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
    ) -> None:
        super().__init__()
        channels, height, width = parameter_shape
        c1, c2 = _CHANNELS
        smallest = (c2, padded(height, _STRIDE) // _STRIDE, padded(width, _STRIDE) // _STRIDE)
        widths = [num_latents * num_categories, hidden, smallest[0] * smallest[1] * smallest[2]]
        self.body = nn.Sequential(
            *linear_blocks(widths, activation, normalization),
            nn.Unflatten(-1, smallest),
            nn.ConvTranspose2d(c2, c1, 4, stride=2, padding=1, bias=normalization != "batch"),
            activate(c1, activation, normalization, conv=True),
        )
        self.head = nn.ConvTranspose2d(c1, channels, 4, stride=2, padding=1, bias=False)
        self._size = (height, width)

    def forward(self, z: Tensor) -> Tensor:
        """Codes (..., N, K) → parameters (..., P, H, W)."""
        parameters = self.head(self.body(z.reshape(-1, z.shape[-2] * z.shape[-1])))
        parameters = parameters[..., : self._size[0], : self._size[1]]
        return parameters.reshape(*z.shape[:-2], *parameters.shape[1:])
