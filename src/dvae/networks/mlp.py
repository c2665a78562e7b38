"""Fully connected networks."""

import math
from collections.abc import Sequence

from torch import Tensor, nn

from dvae.networks.base import Decoder, Encoder, PreciseLinear, linear_blocks

__all__ = ["MLPDecoder", "MLPEncoder"]


class MLPEncoder(Encoder):
    """Fully connected encoder: (B, C, H, W) → logits (B, N, K).

    Args:
        image_shape: Shape of an image, (C, H, W).
        num_latents: N, at least 1.
        num_categories: K, at least 2.
        hidden: Widths of the hidden layers, from the image to the codes.
        activation: A name in `dvae.networks.options.ACTIVATIONS`.
        normalization: "none", "batch" or "layer".
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        num_latents: int,
        num_categories: int,
        *,
        hidden: Sequence[int],
        activation: str,
        normalization: str,
    ) -> None:
        super().__init__()
        widths = [math.prod(image_shape), *hidden]
        self.body = linear_blocks(widths, activation, normalization)
        self.head = PreciseLinear(widths[-1], num_latents * num_categories)
        self._codes = (num_latents, num_categories)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) → logits (B, N, K)."""
        return self.head(self.body(images.flatten(1))).unflatten(-1, self._codes)


class MLPDecoder(Decoder):
    """Mirror of `MLPEncoder`: codes (..., N, K) → parameters (..., P, H, W).

    Args:
        parameter_shape: Shape of the parameters of an image, (P, H, W).
        num_latents: N, at least 1.
        num_categories: K, at least 2.
        hidden: Widths of the encoder's hidden layers; the decoder reverses them.
        activation: A name in `dvae.networks.options.ACTIVATIONS`.
        normalization: "none", "batch" or "layer".
    """

    def __init__(
        self,
        parameter_shape: Sequence[int],
        num_latents: int,
        num_categories: int,
        *,
        hidden: Sequence[int],
        activation: str,
        normalization: str,
    ) -> None:
        super().__init__()
        widths = [num_latents * num_categories, *reversed(hidden)]
        self.body = linear_blocks(widths, activation, normalization)
        self.head = nn.Linear(widths[-1], math.prod(parameter_shape), bias=False)
        self._parameter_shape = tuple(parameter_shape)

    def forward(self, z: Tensor) -> Tensor:
        """Codes (..., N, K) → parameters (..., P, H, W)."""
        leading = z.shape[:-2]
        parameters = self.head(self.body(z.reshape(-1, z.shape[-2] * z.shape[-1])))
        return parameters.reshape(*leading, *self._parameter_shape)
