"""Base classes of encoders and decoders, and their building blocks."""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from dvae.distributions import one_hot
from dvae.networks.options import ACTIVATIONS

__all__ = [
    "Decoder",
    "Encoder",
    "PreciseLinear",
    "activate",
    "linear_blocks",
    "pad_to_multiple",
    "padded",
]


class Encoder(nn.Module, ABC):
    """Images → logits of codes."""

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W), centred or in [0, 1] → logits (B, N, K)."""


class Decoder(nn.Module, ABC):
    """Codes → parameters of the likelihood, without an output bias: the model adds it.

    Attributes:
        shared_codebook: Whether a category means the same in all latents.
    """

    shared_codebook: ClassVar[bool] = False

    @abstractmethod
    def forward(self, z: Tensor) -> Tensor:
        """One-hot or relaxed codes (..., N, K) → parameters (..., P, H, W)."""

    def decode_codes(self, codes: Tensor, num_categories: int, dtype: torch.dtype) -> Tensor:
        """Integer codes (..., N) → the same parameters as for their one-hot vectors.

        A network that looks codes up in a codebook overrides this, to build no one-hot vectors.

        Args:
            codes: (..., N).
            num_categories: K.
            dtype: Dtype of the one-hot vectors.
        """
        return self(one_hot(codes, num_categories, dtype))


class PreciseLinear(nn.Linear):
    """A linear layer that keeps the precision of its weights under autocast; for logits of codes.

    The gradient of a latent's logits sums to 0 over its categories. Rounded to half precision it
    does not: the logits then drift together until they are too large to be told apart.
    """

    def forward(self, features: Tensor) -> Tensor:
        """Features (..., D) → (..., D')."""
        with torch.autocast(features.device.type, enabled=False):
            return super().forward(features.to(self.weight.dtype))


def activate(width: int, activation: str, normalization: str, *, conv: bool = False) -> nn.Module:
    """Normalization over `width` features (or channels), then the activation.

    Args:
        width: Features of the input.
        activation: A name in `dvae.networks.options.ACTIVATIONS`.
        normalization: "none", "batch" or "layer".
        conv: Whether the features are the channels of an image.
    """
    function: nn.Module = getattr(nn, ACTIVATIONS[activation])()
    if normalization == "none":
        return function
    if normalization == "batch":
        return nn.Sequential(nn.BatchNorm2d(width) if conv else nn.BatchNorm1d(width), function)
    return nn.Sequential(nn.GroupNorm(1, width) if conv else nn.LayerNorm(width), function)


def padded(size: int, multiple: int) -> int:
    """The smallest multiple that is at least `size`."""
    return -(-size // multiple) * multiple


def pad_to_multiple(images: Tensor, multiple: int) -> Tensor:
    """Repeats the last row and column until both sides are multiples; (B, C, H, W)."""
    bottom, right = (padded(size, multiple) - size for size in images.shape[-2:])
    return pad(images, (0, right, 0, bottom), mode="replicate") if bottom or right else images


def linear_blocks(widths: Sequence[int], activation: str, normalization: str) -> nn.Sequential:
    """Linear layers of the given widths, each followed by normalization and activation."""
    blocks = nn.Sequential()
    for inputs, outputs in itertools.pairwise(widths):
        # A bias before batch normalization has no effect.
        blocks.append(nn.Linear(inputs, outputs, bias=normalization != "batch"))
        blocks.append(activate(outputs, activation, normalization))
    return blocks
