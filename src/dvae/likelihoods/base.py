"""Base class of likelihoods: parameters from a decoder → distributions of pixels."""

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Generator, Tensor, nn

from dvae.likelihoods.options import LikelihoodOptions, Pixels

__all__ = ["Likelihood", "scale_of"]


def scale_of(parameter: Tensor, minimum: float) -> Tensor:
    """Turns an output l of the decoder into a scale: minimum + (exp(l) if l < 0, else 1 + l).

    A single wild step of training cannot make it infinite, and unlike a clamp it keeps a gradient.

    Args:
        parameter: l.
        minimum: The scale is larger than this.
    """
    return parameter.clamp(max=0).exp() + parameter.relu() + minimum


class Likelihood(nn.Module, ABC):
    """p(x|z) = Π_pixels p(x_pixel; parameters), for images (C, H, W) in [0, 1].

    The value v of an 8-bit image is v / 255.

    Attributes:
        options: The options class, which also declares what a pixel is.
    """

    options: ClassVar[type[LikelihoodOptions]]

    @property
    def pixels(self) -> Pixels:
        """What it describes: "binary", "8-bit" or "real" pixels; see `LikelihoodOptions`."""
        return self.options.pixels

    @abstractmethod
    def channels(self, image_channels: int) -> int:
        """P, the number of parameter channels that a decoder returns for images of C channels."""

    @abstractmethod
    def log_prob(self, images: Tensor, parameters: Tensor) -> Tensor:
        """log p(x|z), summed over pixels and channels; a log-density for real pixels.

        Args:
            images: (B, C, H, W) in [0, 1].
            parameters: (..., B, P, H, W).

        Returns:
            Nats per image, (..., B).
        """

    @abstractmethod
    def mean(self, parameters: Tensor) -> Tensor:
        """Mean image in [0, 1]: (..., P, H, W) → (..., C, H, W).

        For real pixels, the centre of the density instead, clipped to [0, 1].
        """

    @abstractmethod
    def sample(self, parameters: Tensor, generator: Generator | None = None) -> Tensor:
        """Draws images: (..., P, H, W) → (..., C, H, W); real pixels are clipped to [0, 1]."""

    @abstractmethod
    def start(self, pixel_mean: Tensor) -> Tensor:
        """Initial parameters, whose mean is about the mean training image.

        Args:
            pixel_mean: (C, H, W) in [0, 1].

        Returns:
            (P, H, W), finite.
        """

    def linear_form(self, parameters: Tensor) -> tuple[Tensor, Tensor] | None:
        """w and c of log p(x|z) = ⟨x, w⟩ + c, for likelihoods that are linear in the image.

        One matrix product then scores all images against all codes.

        Args:
            parameters: (M, P, H, W).

        Returns:
            w, (M, C·H·W), and c in nats, (M,); None if log p(x|z) is not linear in x.
        """
        return None
