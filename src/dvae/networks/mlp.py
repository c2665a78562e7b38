"""Fully connected networks."""

import math
from collections.abc import Sequence

from torch import Tensor, nn

from dvae.networks.base import CodeMap, Decoder, linear_blocks
from dvae.networks.flat import FlatEncoder

__all__ = ["MLPDecoder", "MLPEncoder"]


class MLPEncoder(FlatEncoder):
    """Fully connected encoder: (B, C, H, W) → logits (B, N, K).

    Args:
        image_shape: Shape of an image, (C, H, W).
        num_latents: N, at least 1.
        num_categories: K, at least 2.
        hidden: Widths of the hidden layers, from the image to the codes.
        activation: A name in `dvae.networks.options.ACTIVATIONS`.
        normalization: "none", "batch" or "layer".
        dropout: Share of the hidden units that are left out in training.
        centered: See `FlatEncoder`.
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
        dropout: float,
        centered: bool,
    ) -> None:
        widths = [math.prod(image_shape), *hidden]
        body = linear_blocks(widths, activation, normalization, dropout)
        super().__init__(body, widths[-1], num_latents, num_categories, centered=centered)

    def features(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) → features (B, D)."""
        return self.body(images.flatten(1))


class MLPDecoder(Decoder):
    """Fully connected decoder: codes (..., N, K) → parameters (..., P, H, W).

    Args:
        parameter_shape: Shape of the parameters of an image, (P, H, W).
        num_latents: N, at least 1.
        num_categories: K, at least 2.
        hidden: Widths of the hidden layers, from the codes to the image.
        activation: A name in `dvae.networks.options.ACTIVATIONS`.
        normalization: "none", "batch" or "layer".
        dropout: Share of the hidden units that are left out in training.
        code_map: How it reads codes; see `CodeMap`.
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
        dropout: float,
        code_map: str,
    ) -> None:
        super().__init__()
        self.read = CodeMap(num_categories, code_map)
        widths = [num_latents * self.read.width, *hidden]
        self.body = linear_blocks(widths, activation, normalization, dropout)
        self.head = nn.Linear(widths[-1], math.prod(parameter_shape), bias=False)
        self._parameter_shape = tuple(parameter_shape)

    def forward(self, z: Tensor) -> Tensor:
        """Codes (..., N, K) → parameters (..., P, H, W)."""
        read = self.read(z)
        parameters = self.head(self.body(read.reshape(-1, read.shape[-1])))
        return parameters.reshape(*z.shape[:-2], *self._parameter_shape)
