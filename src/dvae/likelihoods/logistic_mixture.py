"""Pixels of 256 values by a mixture of discretized logistic distributions, with coupled colours."""

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from dvae.distributions import gumbel_noise, working_dtype
from dvae.likelihoods.base import Likelihood, scale_of
from dvae.likelihoods.discretized_logistic import (
    MIN_SCALE,
    START_SCALE,
    interval_log_prob,
    interval_mean,
    interval_sample,
)
from dvae.likelihoods.logistic_mixture_options import LogisticMixtureOptions

__all__ = ["LogisticMixture"]


class LogisticMixture(Likelihood):
    """p(pixel) = Σ_m π_m Π_c P(x_c; μ_mc + Σ_{k<c} a_mck (x_k − 1/2), s_mc), with M components.

    P is that of `interval_log_prob`. All channels of a pixel share the component; the location of
    a channel moves with the values of the channels before it, by coefficients a in (−1, 1).

    The parameters of a pixel are groups of M numbers: logits of π; C locations μ; C parameters of
    scales s, see `scale_of`; and C (C − 1) / 2 numbers whose tanh is a: (1, 0), (2, 0), (2, 1), …

    Args:
        num_mixtures: M, at least 1.

    References:
        Salimans et al. 2017, "PixelCNN++", arXiv 1701.05517.
    """

    options = LogisticMixtureOptions

    def __init__(self, num_mixtures: int) -> None:
        super().__init__()
        self.num_mixtures = num_mixtures

    def channels(self, image_channels: int) -> int:
        """M (C + 1) (C + 2) / 2: 3 M for grey images, 10 M for coloured ones."""
        return self.num_mixtures * (image_channels + 1) * (image_channels + 2) // 2

    def log_prob(self, images: Tensor, parameters: Tensor) -> Tensor:
        """log p(x|z) in nats per image; see `Likelihood.log_prob`."""
        logits, locations, scales, couplings = self._split(parameters)
        pixels = [channel.unsqueeze(-3) for channel in images.unbind(-3)]
        scores = logits.log_softmax(-3)
        for channel, value in enumerate(pixels):
            location = _shifted(locations[channel], couplings, pixels[:channel])
            scores = scores + interval_log_prob(value, location, scales[channel])
        return scores.logsumexp(-3).sum((-2, -1))

    def mean(self, parameters: Tensor) -> Tensor:
        """The mean image.

        The location of a channel is taken at the means of the channels before it. This is exact
        unless the locations come so close to 0 or 1 that the distribution is clipped there.
        """
        logits, locations, scales, couplings = self._split(parameters)
        means: list[Tensor] = []
        for channel, scale in enumerate(scales):
            means.append(interval_mean(_shifted(locations[channel], couplings, means), scale))
        weights = logits.softmax(-3)
        return torch.stack([(weights * mean).sum(-3) for mean in means], -3).clamp(max=1)

    def sample(self, parameters: Tensor, generator: Generator | None = None) -> Tensor:
        """Draws a component for each pixel, then its channels one after the other."""
        logits, *groups = self._split(parameters)
        noise = gumbel_noise(
            logits.shape, dtype=logits.dtype, device=logits.device, generator=generator
        )
        component = (logits + noise).argmax(-3, keepdim=True)
        locations, scales, couplings = (
            [numbers.gather(-3, component) for numbers in group] for group in groups
        )
        drawn: list[Tensor] = []
        for channel, scale in enumerate(scales):
            location = _shifted(locations[channel], couplings, drawn)
            drawn.append(interval_sample(location, scale, generator))
        return torch.cat(drawn, -3)

    def start(self, pixel_mean: Tensor) -> Tensor:
        """Locations around the mean image, scales of 0.1, equal weights and no coupling."""
        count, size = self.num_mixtures, pixel_mean.shape[-2:]
        channels = len(pixel_mean)
        # Components that started as one would get the same gradient.
        offsets = START_SCALE * ((2 * torch.arange(count) + 1) / count - 1).to(pixel_mean)
        groups = pixel_mean.new_zeros(self.channels(channels) // count, count, *size)
        groups[1 : channels + 1] = pixel_mean.unsqueeze(1) + offsets.view(-1, 1, 1)
        groups[channels + 1 : 2 * channels + 1] = math.log(START_SCALE)
        return groups.flatten(0, 1)

    def _split(
        self, parameters: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...], tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Logits, and for each channel locations, scales and couplings, each (..., M, H, W)."""
        parameters = parameters.to(working_dtype(parameters.dtype))
        groups = parameters.unflatten(-3, (-1, self.num_mixtures))
        # The number of groups is (C + 1) (C + 2) / 2.
        channels = (math.isqrt(8 * groups.shape[-4] + 1) - 3) // 2
        sizes = [1, channels, channels, channels * (channels - 1) // 2]
        logits, locations, scales, couplings = groups.split(sizes, -4)
        return (
            logits.squeeze(-4),
            locations.unbind(-4),
            scale_of(scales, MIN_SCALE).unbind(-4),
            couplings.tanh().unbind(-4),
        )


def _shifted(location: Tensor, couplings: Sequence[Tensor], before: Sequence[Tensor]) -> Tensor:
    """The location of a channel, given the values of the channels before it."""
    first = len(before) * (len(before) - 1) // 2
    for coupling, value in zip(couplings[first:], before, strict=False):
        location = location + coupling * (value - 0.5)
    return location
