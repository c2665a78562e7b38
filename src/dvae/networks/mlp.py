"""Encoders (images → logits of codes) and decoders (codes → logits of pixels)."""

import itertools
import math
from collections.abc import Sequence

from torch import Tensor, nn

__all__ = [
    "ACTIVATIONS",
    "NORMALIZATIONS",
    "ConvDecoder",
    "ConvEncoder",
    "MLPDecoder",
    "MLPEncoder",
]

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "leaky_relu": nn.LeakyReLU,
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}
"""Activations by the names that configurations use."""

NORMALIZATIONS = ("none", "batch", "layer")
"""Normalizations before an activation, by the names that configurations use."""

_CONV_CHANNELS = (32, 64)
_CONV_IMAGE = (1, 28, 28)


def _activate(width: int, activation: str, normalization: str, *, conv: bool = False) -> nn.Module:
    """Normalization over `width` features (or channels), then the activation."""
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation: expected one of {list(ACTIVATIONS)}, found {activation!r}")
    if normalization not in NORMALIZATIONS:
        raise ValueError(
            f"normalization: expected one of {list(NORMALIZATIONS)}, found {normalization!r}"
        )
    activate = ACTIVATIONS[activation]()
    if normalization == "none":
        return activate
    if normalization == "batch":
        return nn.Sequential(nn.BatchNorm2d(width) if conv else nn.BatchNorm1d(width), activate)
    return nn.Sequential(nn.GroupNorm(1, width) if conv else nn.LayerNorm(width), activate)


def _linear_blocks(widths: Sequence[int], activation: str, normalization: str) -> nn.Sequential:
    """Linear layers through the given widths, each normalized and activated."""
    blocks = nn.Sequential()
    for inputs, outputs in itertools.pairwise(widths):
        # A bias before batch normalization has no effect.
        blocks.append(nn.Linear(inputs, outputs, bias=normalization != "batch"))
        blocks.append(_activate(outputs, activation, normalization))
    return blocks


class MLPEncoder(nn.Module):
    """Fully connected encoder: (B, *image_shape) → logits (B, N, K).

    Args:
        image_shape: Shape of an image, such as (1, 28, 28).
        num_latents: N, at least 1.
        num_categories: K, at least 2.
        hidden: Widths of the hidden layers, from the image to the codes.
        activation: A name out of `ACTIVATIONS`.
        normalization: A name out of `NORMALIZATIONS`.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        num_latents: int,
        num_categories: int,
        *,
        hidden: Sequence[int] = (512, 256),
        activation: str = "relu",
        normalization: str = "none",
    ) -> None:
        super().__init__()
        widths = [math.prod(image_shape), *hidden]
        self.body = _linear_blocks(widths, activation, normalization)
        self.head = nn.Linear(widths[-1], num_latents * num_categories)
        self._codes = (num_latents, num_categories)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, *image_shape) → logits (B, N, K)."""
        return self.head(self.body(images.flatten(1))).unflatten(-1, self._codes)


class MLPDecoder(nn.Module):
    """Fully connected decoder: codes (..., N, K) → pixel logits (..., *image_shape).

    Args:
        image_shape: Shape of an image.
        num_latents: N, at least 1.
        num_categories: K, at least 2.
        hidden: Widths of the hidden layers of the encoder, which the decoder mirrors.
        activation: A name out of `ACTIVATIONS`.
        normalization: A name out of `NORMALIZATIONS`.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        num_latents: int,
        num_categories: int,
        *,
        hidden: Sequence[int] = (512, 256),
        activation: str = "relu",
        normalization: str = "none",
    ) -> None:
        super().__init__()
        widths = [num_latents * num_categories, *reversed(hidden)]
        self.body = _linear_blocks(widths, activation, normalization)
        self.head = nn.Linear(widths[-1], math.prod(image_shape), bias=False)
        self._image_shape = tuple(image_shape)

    def forward(self, z: Tensor) -> Tensor:
        """Codes (..., N, K) → pixel logits (..., *image_shape)."""
        leading = z.shape[:-2]
        pixels = self.head(self.body(z.reshape(-1, z.shape[-2] * z.shape[-1])))
        return pixels.reshape(*leading, *self._image_shape)


class ConvEncoder(nn.Module):
    """Small convolutional encoder for 28 × 28 images: (B, 1, 28, 28) → logits (B, N, K).

    Two convolutions of stride 2 (32 and 64 channels), one hidden linear layer.

    Args:
        image_shape: Shape of an image; (1, 28, 28) is expected.
        num_latents: N, at least 1.
        num_categories: K, at least 2.
        hidden: Width of the hidden linear layer.
        activation: A name out of `ACTIVATIONS`.
        normalization: A name out of `NORMALIZATIONS`.

    Raises:
        ValueError: If the images have another shape.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        num_latents: int,
        num_categories: int,
        *,
        hidden: int = 256,
        activation: str = "relu",
        normalization: str = "none",
    ) -> None:
        super().__init__()
        _check_conv_shape(image_shape)
        c1, c2 = _CONV_CHANNELS
        bias = normalization != "batch"
        self.body = nn.Sequential(
            nn.Conv2d(1, c1, 4, stride=2, padding=1, bias=bias),
            _activate(c1, activation, normalization, conv=True),
            nn.Conv2d(c1, c2, 4, stride=2, padding=1, bias=bias),
            _activate(c2, activation, normalization, conv=True),
            nn.Flatten(),
            *_linear_blocks([c2 * 7 * 7, hidden], activation, normalization),
        )
        self.head = nn.Linear(hidden, num_latents * num_categories)
        self._codes = (num_latents, num_categories)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 1, 28, 28) → logits (B, N, K)."""
        return self.head(self.body(images)).unflatten(-1, self._codes)


class ConvDecoder(nn.Module):
    """Mirror of `ConvEncoder`: codes (..., N, K) → pixel logits (..., 1, 28, 28).

    Args:
        image_shape: Shape of an image; (1, 28, 28) is expected.
        num_latents: N, at least 1.
        num_categories: K, at least 2.
        hidden: Width of the hidden linear layer.
        activation: A name out of `ACTIVATIONS`.
        normalization: A name out of `NORMALIZATIONS`.

    Raises:
        ValueError: If the images have another shape.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        num_latents: int,
        num_categories: int,
        *,
        hidden: int = 256,
        activation: str = "relu",
        normalization: str = "none",
    ) -> None:
        super().__init__()
        _check_conv_shape(image_shape)
        c1, c2 = _CONV_CHANNELS
        self.body = nn.Sequential(
            *_linear_blocks(
                [num_latents * num_categories, hidden, c2 * 7 * 7], activation, normalization
            ),
            nn.Unflatten(-1, (c2, 7, 7)),
            nn.ConvTranspose2d(c2, c1, 4, stride=2, padding=1, bias=normalization != "batch"),
            _activate(c1, activation, normalization, conv=True),
        )
        self.head = nn.ConvTranspose2d(c1, 1, 4, stride=2, padding=1, bias=False)

    def forward(self, z: Tensor) -> Tensor:
        """Codes (..., N, K) → pixel logits (..., 1, 28, 28)."""
        pixels = self.head(self.body(z.reshape(-1, z.shape[-2] * z.shape[-1])))
        return pixels.reshape(*z.shape[:-2], *_CONV_IMAGE)


def _check_conv_shape(image_shape: Sequence[int]) -> None:
    if tuple(image_shape) != _CONV_IMAGE:
        raise ValueError(f"model=conv: expected images of {_CONV_IMAGE}, found {image_shape}")
