"""Base classes of encoders and decoders, and their building blocks."""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from dvae.distributions import one_hot
from dvae.networks.options import ACTIVATIONS

__all__ = [
    "BottomDecoder",
    "Centre",
    "CodeMap",
    "Decoder",
    "Encoder",
    "FeatureEncoder",
    "PreciseLinear",
    "activate",
    "glorot",
    "linear_blocks",
    "pad_to_multiple",
    "padded",
]


class Encoder(nn.Module, ABC):
    """q(z|x) = Π_g q(z_g|x, z_<g): images → logits of codes, of all at once or of group by group.

    Most encoders have one group and define `forward` only.
    """

    @property
    def places(self) -> Sequence[slice]:
        """The latents of each group, in the order in which the groups are drawn."""
        return (slice(None),)

    @abstractmethod
    def forward(self, images: Tensor) -> Any:
        """Images (B, C, H, W), centred or in [0, 1] → logits (B, N, K).

        With several groups, whatever `logits` needs to know of the images.
        """

    def logits(self, features: Any, drawn: Sequence[Tensor]) -> Tensor:
        """The logits of the next group.

        Args:
            features: What `forward` returned.
            drawn: Codes of each group drawn before, (..., B, n, K), one-hot or relaxed.

        Returns:
            (B, n, K) or (..., B, n, K).
        """
        return features


class FeatureEncoder(Encoder):
    """Images → features → logits of all codes."""

    @abstractmethod
    def features(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) → features (B, …)."""

    @abstractmethod
    def to_logits(self, features: Tensor) -> Tensor:
        """Features (B, …) → logits (B, N, K)."""

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) → logits (B, N, K)."""
        return self.to_logits(self.features(images))


class Decoder(nn.Module, ABC):
    """Codes → parameters of the likelihood, without an output bias: the model adds it.

    Attributes:
        shared_codebook: Whether a category means the same in all latents.
    """

    shared_codebook: bool = False

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


class BottomDecoder(Decoder):
    """Reads only the level of a hierarchy next to the image, which has the last latents.

    Args:
        decoder: A decoder of that level.
        num_latents: Latents of that level.
    """

    def __init__(self, decoder: Decoder, num_latents: int) -> None:
        super().__init__()
        self.shared_codebook = decoder.shared_codebook
        self.decoder = decoder
        self._num_latents = num_latents

    def forward(self, z: Tensor) -> Tensor:
        """Codes of all levels (..., N, K) → parameters (..., P, H, W)."""
        return self.decoder(z[..., -self._num_latents :, :])

    def decode_codes(self, codes: Tensor, num_categories: int, dtype: torch.dtype) -> Tensor:
        """Integer codes (..., N) → parameters (..., P, H, W)."""
        return self.decoder.decode_codes(codes[..., -self._num_latents :], num_categories, dtype)


class PreciseLinear(nn.Linear):
    """A linear layer that keeps the precision of its weights under autocast; for logits of codes.

    The gradient of a latent's logits sums to 0 over its categories. Rounded to half precision it
    does not: the logits then drift together until they are too large to be told apart.
    """

    def forward(self, features: Tensor) -> Tensor:
        """Features (..., D) → (..., D')."""
        with torch.autocast(features.device.type, enabled=False):
            return super().forward(features.to(self.weight.dtype))


class Centre(nn.Module):
    """Subtracts a running mean over all calls in training mode; it is frozen in evaluation mode.

    mean ← 0.9 mean + 0.1 (mean of this call); no gradient passes through it.

    Args:
        width: D.

    References:
        Maddison, Mnih, Teh 2017, arXiv 1611.00712, appendix.
    """

    mean: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))

    def forward(self, features: Tensor) -> Tensor:
        """Features (..., D) → (..., D)."""
        if self.training:
            with torch.no_grad():
                self.mean.lerp_(features.flatten(0, -2).mean(0).to(self.mean.dtype), 0.1)
        return features - self.mean


class CodeMap(nn.Module):
    """One-hot or relaxed codes (..., n, K) → the numbers that a network reads, (..., n · width).

    Args:
        num_categories: K.
        kind: "one_hot" for the K entries themselves. "hypercube" for log2(K) numbers in [−1, 1]:
            each category is a corner of the hypercube, and a relaxed code the mean of corners.

    Attributes:
        width: Numbers for each latent.

    References:
        Maddison, Mnih, Teh 2017, arXiv 1611.00712, appendix.
    """

    corners: Tensor | None

    def __init__(self, num_categories: int, kind: str) -> None:
        super().__init__()
        self.width = num_categories
        self.register_buffer("corners", None, persistent=False)
        if kind == "hypercube":
            self.width = (num_categories - 1).bit_length()
            bits = torch.arange(num_categories).unsqueeze(-1) >> torch.arange(self.width) & 1
            self.corners = 2.0 * bits - 1

    def forward(self, z: Tensor) -> Tensor:
        """Codes (..., n, K) → (..., n · width)."""
        if self.corners is None:
            return z.flatten(-2)
        # One product of matrices is several times as fast as a batch of them.
        read = z.reshape(-1, z.shape[-1]) @ self.corners.to(z.dtype)
        return read.reshape(*z.shape[:-2], -1)


def glorot(network: nn.Module) -> None:
    """Draws weights as Glorot, Bengio 2010, uniformly; biases become 0."""
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


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


def linear_blocks(
    widths: Sequence[int], activation: str, normalization: str, dropout: float = 0.0
) -> nn.Sequential:
    """Linear layers of the given widths, each followed by normalization, activation and dropout."""
    blocks = nn.Sequential()
    for inputs, outputs in itertools.pairwise(widths):
        # A bias before batch normalization has no effect.
        blocks.append(nn.Linear(inputs, outputs, bias=normalization != "batch"))
        blocks.append(activate(outputs, activation, normalization))
        if dropout:
            blocks.append(nn.Dropout(dropout))
    return blocks
