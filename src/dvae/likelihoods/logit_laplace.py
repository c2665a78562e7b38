"""Real pixels in an interval, whose logits have a Laplace density."""

import math

import torch
from torch import Generator, Tensor

from dvae.distributions import exponential_noise, working_dtype
from dvae.likelihoods.base import Likelihood, scale_of
from dvae.likelihoods.logit_laplace_options import LogitLaplaceOptions

__all__ = ["LogitLaplace"]

_MARGIN = 0.1
"""ε: pixels from 0 to 1 are mapped to those from ε to 1 − ε, whose logits are finite."""
_WIDTH = 1 - 2 * _MARGIN
_START_SCALE = 0.5
_MIN_SCALE = 4 * _WIDTH / (255 * math.sqrt(12))
"""Scales are larger than this, the standard deviation of rounding the logits of mid-grey pixels to
256 values: the density would be unbounded otherwise."""


class LogitLaplace(Likelihood):
    """log p(x|z) = Σ_pixels log [(1 − 2ε) / (2 b y (1 − y))] − |logit(y) − μ| / b.

    Here y = (1 − 2ε) x + ε with ε = 0.1, and the parameters are C locations μ, followed by C
    parameters of scales b above 0.0036, see `scale_of`. It is a density of x from −0.125 to 1.125.

    Deviations from the paper: the factor 1 − 2ε, which makes it a density of x instead of y; the
    lower bound of b.

    References:
        Ramesh et al. 2021, "Zero-shot text-to-image generation" (DALL-E), arXiv 2102.12092,
        section 3.
    """

    options = LogitLaplaceOptions

    def channels(self, image_channels: int) -> int:
        """Two for each channel of the image."""
        return 2 * image_channels

    def log_prob(self, images: Tensor, parameters: Tensor) -> Tensor:
        """Log-density in nats per image; see `Likelihood.log_prob`."""
        location, scale = _split(parameters)
        inner = _WIDTH * images + _MARGIN
        volume = (inner * (1 - inner) * (2 / _WIDTH)).log()
        pixels = (inner.logit() - location).abs() / scale + scale.log() + volume
        return -pixels.sum((-3, -2, -1))

    def mean(self, parameters: Tensor) -> Tensor:
        """The medians, as in the paper: the means have no closed form."""
        return _outer(_split(parameters)[0])

    def sample(self, parameters: Tensor, generator: Generator | None = None) -> Tensor:
        """Draws pixels."""
        location, scale = _split(parameters)
        # The difference of two exponential variables is a Laplace variable.
        first, second = exponential_noise(
            (2, *location.shape), dtype=location.dtype, device=location.device, generator=generator
        )
        return _outer(location + scale * (first - second))

    def start(self, pixel_mean: Tensor) -> Tensor:
        """The mean image as median, with a scale of 0.5."""
        location = (_WIDTH * pixel_mean + _MARGIN).logit()
        return torch.cat([location, torch.full_like(pixel_mean, math.log(_START_SCALE))])


def _split(parameters: Tensor) -> tuple[Tensor, Tensor]:
    """Location and scale, in at least single precision."""
    location, scale = parameters.to(working_dtype(parameters.dtype)).chunk(2, -3)
    return location, scale_of(scale, _MIN_SCALE)


def _outer(logits: Tensor) -> Tensor:
    """Logits of y → pixels in [0, 1]."""
    return ((logits.sigmoid() - _MARGIN) / _WIDTH).clamp(0, 1)
