"""Bounds on log p(x) and, with few codes, log p(x) itself; all in nats per image."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from dvae.distributions import all_codes, sample_categorical, softplus_sum
from dvae.randomness import ImageStreams

__all__ = [
    "MAX_DECODES",
    "Enumeration",
    "LatentModel",
    "chunked_bound",
    "exact_log_likelihood",
    "importance_weighted_bound",
    "log_importance_weights",
    "sampled_bound",
]

MAX_DECODES = 4096
"""Codes that are decoded at a time where nothing else is asked for: some 50 MiB for MNIST."""


class LatentModel(Protocol):
    """What the bounds need of a model with categorical latents."""

    @property
    def prior(self) -> "PriorLike":
        """p(z)."""

    @property
    def num_latents(self) -> int:
        """N."""

    @property
    def num_categories(self) -> int:
        """K."""

    def encode(self, images: Tensor, /) -> Tensor:
        """Images (B, ...) → logits (B, N, K)."""

    def decode_codes(self, codes: Tensor, /) -> Tensor:
        """Codes (..., N) → pixel logits (..., *image_shape)."""

    def log_likelihood(self, images: Tensor, pixel_logits: Tensor, /) -> Tensor:
        """log p(x|z): (B, ...) and (..., B, *image_shape) → (..., B)."""


class PriorLike(Protocol):
    """What the bounds need of a prior."""

    def log_prob(self, codes: Tensor) -> Tensor:
        """log p(z): (..., N) → (...)."""


def importance_weighted_bound(log_weights: Tensor) -> Tensor:
    """log (1/m) Σ_s w_s, a lower bound on log p(x) that tightens with m.

    Args:
        log_weights: log w_s = log p(x, z_s) − log q(z_s|x) with z_s drawn from q, (m, B).

    Returns:
        The bound, (B,). With m = 1 it is a draw of the ELBO.

    References:
        Burda, Grosse, Salakhutdinov 2016, arXiv 1509.00519.
    """
    return log_weights.logsumexp(0) - math.log(log_weights.shape[0])


def log_importance_weights(
    model: LatentModel, images: Tensor, logits: Tensor, codes: Tensor
) -> Tensor:
    """log p(x|z) + log p(z) − log q(z|x).

    Args:
        model: The model.
        images: (B, *image_shape).
        logits: Those of q(z|x), (B, N, K).
        codes: (S, B, N).

    Returns:
        (S, B), in nats.
    """
    log_q = logits.log_softmax(-1).expand(*codes.shape, -1)
    log_q = log_q.gather(-1, codes.unsqueeze(-1)).squeeze(-1).sum(-1)
    log_likelihood = model.log_likelihood(images, model.decode_codes(codes))
    return log_likelihood + model.prior.log_prob(codes) - log_q


def sampled_bound(
    model: LatentModel,
    images: Tensor,
    logits: Tensor,
    streams: ImageStreams,
    num_samples: int,
    max_decodes: int = MAX_DECODES,
) -> Tensor:
    """The importance-weighted bound with one-hot codes, in bounded memory.

    Args:
        model: The model.
        images: (B, *image_shape).
        logits: Those of q(z|x), (B, N, K).
        streams: Randomness of the B images.
        num_samples: m, at least 1.
        max_decodes: The most codes that are decoded at once; it changes the memory, not the value.

    Returns:
        The bound in nats, (B,).
    """

    def draw(count: int) -> Tensor:
        codes = sample_categorical(logits, streams.uniform(count, model.num_latents))
        return log_importance_weights(model, images, logits, codes)

    return chunked_bound(draw, num_samples, max_decodes // len(images))


def chunked_bound(draw: Callable[[int], Tensor], num_samples: int, chunk: int) -> Tensor:
    """log (1/m) Σ_s w_s of many samples, a part of them at a time.

    Args:
        draw: Draws the next log weights: their number S → (S, B), in nats.
        num_samples: m, at least 1.
        chunk: The most that are drawn at a time; at least one is.

    Returns:
        The bound in nats, (B,), float64.
    """
    step = max(1, chunk)
    counts = [min(step, num_samples - start) for start in range(0, num_samples, step)]
    parts = [draw(count).double().logsumexp(0) for count in counts]
    return torch.stack(parts).logsumexp(0) - math.log(num_samples)


@dataclass(frozen=True)
class Enumeration:
    """All codes of a model, decoded once.

    Attributes:
        pixel_logits: l(z) of every code, (K^N, pixels).
        offset: log p(z) − Σ_pixels softplus(l(z)), in nats, (K^N,).
    """

    pixel_logits: Tensor
    offset: Tensor

    @classmethod
    def of(cls, model: LatentModel, device: torch.device | str | None = None) -> "Enumeration":
        """Decodes every code.

        Raises:
            ValueError: If there are more than `MAX_ENUMERATION`.
        """
        codes = all_codes(model.num_latents, model.num_categories, device)
        logits, normalizers = [], []
        for part in codes.split(MAX_DECODES):
            pixels = model.decode_codes(part)
            logits.append(pixels.flatten(1))
            normalizers.append(softplus_sum(pixels).flatten(1).sum(-1))
        return cls(torch.cat(logits), model.prior.log_prob(codes) - torch.cat(normalizers))


def exact_log_likelihood(enumeration: Enumeration, images: Tensor) -> Tensor:
    """log p(x) = log Σ_z p(z) p(x|z), for Bernoulli pixels, in one matrix product.

    With log p(x|z) = ⟨x, l(z)⟩ − Σ softplus(l(z)), all images share the decoded codes.

    Args:
        enumeration: All codes of the model.
        images: (B, *image_shape).

    Returns:
        log p(x) in nats, (B,).
    """
    scores = images.flatten(1) @ enumeration.pixel_logits.T
    return (scores + enumeration.offset).logsumexp(-1)
