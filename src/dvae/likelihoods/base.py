"""Base class of likelihoods: parameters from a decoder → distributions of pixels."""

from abc import ABC, abstractmethod

from torch import Generator, Tensor, nn

__all__ = ["Likelihood"]


class Likelihood(nn.Module, ABC):
    """p(x|z) = Π_pixels p(x_pixel; parameters), for images (C, H, W) in [0, 1]."""

    @abstractmethod
    def channels(self, image_channels: int) -> int:
        """P, the number of parameter channels that a decoder returns for images of C channels."""

    @abstractmethod
    def log_prob(self, images: Tensor, parameters: Tensor) -> Tensor:
        """log p(x|z), summed over pixels and channels.

        Args:
            images: (B, C, H, W) in [0, 1].
            parameters: (..., B, P, H, W).

        Returns:
            Nats per image, (..., B).
        """

    @abstractmethod
    def mean(self, parameters: Tensor) -> Tensor:
        """Mean image in [0, 1]: (..., P, H, W) → (..., C, H, W)."""

    @abstractmethod
    def sample(self, parameters: Tensor, generator: Generator | None = None) -> Tensor:
        """Draws images in [0, 1]: (..., P, H, W) → (..., C, H, W)."""

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
