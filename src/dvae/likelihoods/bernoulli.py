"""Bernoulli pixels."""

import torch
from torch import Generator, Tensor
from torch.nn.functional import softplus

from dvae.distributions import working_dtype
from dvae.likelihoods.base import Likelihood
from dvae.likelihoods.bernoulli_options import BernoulliOptions

__all__ = ["Bernoulli"]


class Bernoulli(Likelihood):
    """Each pixel is 1 with probability sigmoid(l); the parameters are the logits l.

    log p(x|z) = Σ_pixels x l − log(1 + exp l), at most 0. Grey pixels are soft targets: for
    them the sum is a negative cross-entropy, not a log-probability.
    """

    options = BernoulliOptions

    def channels(self, image_channels: int) -> int:
        """One logit for each channel."""
        return image_channels

    def log_prob(self, images: Tensor, parameters: Tensor) -> Tensor:
        """log p(x|z) in nats per image; see `Likelihood.log_prob`."""
        # Half precision would lose tenths of a nat in the sum over pixels.
        logits = parameters.to(working_dtype(parameters.dtype))
        logits, images = torch.broadcast_tensors(logits, images)
        # log1p would take four times as long, for an accuracy that the sum over pixels loses.
        size = logits.abs()
        normalizer = size / 2 + torch.log(1 + torch.exp(-size))  # log(1 + exp l) − l / 2
        return ((images - 0.5) * logits - normalizer).flatten(-3).sum(-1)

    def mean(self, parameters: Tensor) -> Tensor:
        """The probabilities."""
        return parameters.sigmoid()

    def sample(self, parameters: Tensor, generator: Generator | None = None) -> Tensor:
        """Draws pixels of 0 and 1."""
        return torch.bernoulli(parameters.sigmoid(), generator=generator)

    def start(self, pixel_mean: Tensor) -> Tensor:
        """The log-odds of the mean image, clamped to [0.001, 0.999]."""
        return pixel_mean.logit(eps=1e-3)

    def linear_form(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """The logits, and −Σ log(1 + exp l); see `Likelihood.linear_form`."""
        return parameters.flatten(1), -softplus(parameters).flatten(1).sum(-1)
