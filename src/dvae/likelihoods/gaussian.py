"""Real pixels with a normal density."""

import math

import torch
from torch import Generator, Tensor

from dvae.distributions import working_dtype
from dvae.likelihoods.base import Likelihood, scale_of
from dvae.likelihoods.gaussian_options import GaussianOptions

__all__ = ["Gaussian"]

_START_SCALE = 0.25
_MIN_SCALE = 1 / (255 * math.sqrt(12))
"""Scales are larger than this, the standard deviation of rounding to 256 values: the density would
be unbounded otherwise, as pixels take certain values exactly."""


class Gaussian(Likelihood):
    """log p(x|z) = −Σ_pixels [(x − μ)² / 2σ² + log σ + log(2π) / 2], a density of real pixels.

    The parameters are C locations μ, followed by the parameters of scales σ above 0.0011, see
    `scale_of`: C of them, or with one scale for each image a single one, whose mean over all
    pixels is used.

    Args:
        scale: "pixel" for a σ of each channel of each pixel, "image" for one of each image.

    References:
        Rybkin, Daniilidis, Levine 2021, "Simple and effective VAE training with calibrated
        decoders", arXiv 2006.13202.
    """

    options = GaussianOptions

    def __init__(self, scale: str) -> None:
        super().__init__()
        self.scale = scale

    def channels(self, image_channels: int) -> int:
        """Locations and scales: 2 C, or C + 1 with one scale for each image."""
        return image_channels + (image_channels if self.scale == "pixel" else 1)

    def log_prob(self, images: Tensor, parameters: Tensor) -> Tensor:
        """Log-density in nats per image; see `Likelihood.log_prob`."""
        location, scale = self._split(parameters)
        pixels = ((images - location) / scale).square() / 2 + scale.log()
        return -(pixels + math.log(2 * math.pi) / 2).sum((-3, -2, -1))

    def mean(self, parameters: Tensor) -> Tensor:
        """The locations."""
        return self._split(parameters)[0].clamp(0, 1)

    def sample(self, parameters: Tensor, generator: Generator | None = None) -> Tensor:
        """Draws pixels."""
        location, scale = self._split(parameters)
        noise = torch.randn(
            location.shape, dtype=location.dtype, device=location.device, generator=generator
        )
        return (location + scale * noise).clamp(0, 1)

    def start(self, pixel_mean: Tensor) -> Tensor:
        """The mean image as location, with a scale of 0.25."""
        scales = self.channels(len(pixel_mean)) - len(pixel_mean)
        log_scale = torch.full_like(pixel_mean[:scales], math.log(_START_SCALE))
        return torch.cat([pixel_mean, log_scale])

    def _split(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Location and scale, in at least single precision."""
        parameters = parameters.to(working_dtype(parameters.dtype))
        if self.scale == "pixel":
            location, scale = parameters.chunk(2, -3)
        else:
            location = parameters[..., :-1, :, :]
            scale = parameters[..., -1:, :, :].mean((-2, -1), keepdim=True)
        return location, scale_of(scale, _MIN_SCALE)
