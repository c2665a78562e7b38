"""Pixels of 256 values: the probabilities of intervals under a logistic distribution."""

import math

import torch
from torch import Generator, Tensor

from dvae.distributions import working_dtype
from dvae.likelihoods.base import Likelihood, scale_of
from dvae.likelihoods.discretized_logistic_options import DiscretizedLogisticOptions

__all__ = [
    "MIN_SCALE",
    "START_SCALE",
    "DiscretizedLogistic",
    "interval_log_prob",
    "interval_mean",
    "interval_sample",
]

START_SCALE = 0.1
"""Scale at the start of training, where 1 is the distance from black to white."""
_HALF = 1 / 510
"""Half the distance between two values."""
MIN_SCALE = math.exp(-7) / 2
"""Scales are larger than this: PixelCNN++'s bound, e^−7 for pixels from −1 to 1."""


def interval_log_prob(images: Tensor, location: Tensor, scale: Tensor) -> Tensor:
    """log P(v) = log [F(v + 1/510) − F(v − 1/510)] with F(y) = sigmoid((y − location) / scale).

    The intervals of 0 and 1 reach to infinity, so that the 256 probabilities sum to 1.

    Args:
        images: Values 0, 1/255, …, 1 of pixels, of a shape that broadcasts with the parameters'.
        location: Centre of the distribution.
        scale: Its scale, greater than 0.

    Returns:
        Nats of each pixel, at most 0. Value and gradient are finite.
    """
    distance, half = (images - location) / scale, _HALF / scale
    # log F(v + 1/510), and log [1 − F(v − 1/510)].
    below, above = _log_sigmoid(half + distance), _log_sigmoid(half - distance)
    # sigmoid(a) − sigmoid(b) = sigmoid(a) sigmoid(−b) (1 − exp(b − a)): no cancellation, so that
    # the approximation of PixelCNN++ for tiny differences is not needed.
    between = below + above + (-torch.expm1(-2 * half)).log()
    return torch.where(images <= 0, below, torch.where(images >= 1, above, between))


def interval_mean(location: Tensor, scale: Tensor) -> Tensor:
    """The mean ∫_0^1 [1 − F(t)] dt of the logistic distribution clipped to [0, 1].

    That of the 256 values is the midpoint rule for this integral. The two differ by less than
    1/510, and by less than 5 · 10^−5 for scales from 1/255 on.
    """
    # e^−a − 1 for the distances a from 0 and 1; exact where large scales make them small.
    black, white = (torch.expm1(-(location - end).abs() / scale) for end in (0, 1))
    tails = scale * torch.log1p((black - white) / (2 + white))
    return (location.clamp(0, 1) + tails).clamp(0, 1)


def interval_sample(location: Tensor, scale: Tensor, generator: Generator | None) -> Tensor:
    """Draws from the logistic distribution, and takes the nearest of the 256 values."""
    uniform = torch.rand(
        location.shape, dtype=location.dtype, device=location.device, generator=generator
    )
    drawn = location + scale * uniform.logit(eps=torch.finfo(uniform.dtype).eps)
    return (255 * drawn).round().clamp(0, 255) / 255


def _log_sigmoid(logits: Tensor) -> Tensor:
    """log sigmoid; log1p would take longer, for an accuracy that the sum over pixels loses."""
    return logits.clamp(max=0) - torch.log(1 + torch.exp(-logits.abs()))


class DiscretizedLogistic(Likelihood):
    """Each channel of a pixel by itself: see `interval_log_prob`.

    The parameters are C locations, followed by C parameters of scales; see `scale_of`.

    References:
        Kingma et al. 2016, "Improving variational inference with inverse autoregressive flow",
        arXiv 1606.04934; Salimans et al. 2017, "PixelCNN++", arXiv 1701.05517.
    """

    options = DiscretizedLogisticOptions

    def channels(self, image_channels: int) -> int:
        """Two for each channel of the image."""
        return 2 * image_channels

    def log_prob(self, images: Tensor, parameters: Tensor) -> Tensor:
        """log p(x|z) in nats per image; see `Likelihood.log_prob`."""
        return interval_log_prob(images, *_split(parameters)).sum((-3, -2, -1))

    def mean(self, parameters: Tensor) -> Tensor:
        """The mean of each channel; see `interval_mean`."""
        return interval_mean(*_split(parameters))

    def sample(self, parameters: Tensor, generator: Generator | None = None) -> Tensor:
        """Draws one of the 256 values for each channel of a pixel."""
        return interval_sample(*_split(parameters), generator)

    def start(self, pixel_mean: Tensor) -> Tensor:
        """The mean image as location, with a scale of 0.1."""
        return torch.cat([pixel_mean, torch.full_like(pixel_mean, math.log(START_SCALE))])


def _split(parameters: Tensor) -> tuple[Tensor, Tensor]:
    """Location and scale, in at least single precision."""
    location, scale = parameters.to(working_dtype(parameters.dtype)).chunk(2, -3)
    return location, scale_of(scale, MIN_SCALE)
