"""Bounds on log p(x) and, with few codes, log p(x) exactly; all in nats per image."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from dvae.distributions import all_codes, sample_categorical
from dvae.models.vae import VAE
from dvae.randomness import ImageStreams

__all__ = [
    "MAX_DECODES",
    "Enumeration",
    "chunked_bound",
    "decodes_at_once",
    "exact_log_likelihood",
    "importance_weighted_bound",
    "log_importance_weights",
    "sampled_bound",
]

MAX_DECODES = 4096
"""Default for the number of codes that are decoded at once: some 50 MiB for MNIST."""
_MAX_NUMBERS = 2**22
"""Most numbers in the likelihood's parameters of codes that are decoded at once: 16 MiB."""


def importance_weighted_bound(log_weights: Tensor) -> Tensor:
    """log (1/m) Σ_s w_s, a lower bound on log p(x) that tightens with m.

    Args:
        log_weights: log w_s = log p(x, z_s) − log q(z_s|x) with z_s drawn from q, (m, B).

    Returns:
        The bound, (B,). With m = 1 it is a one-sample estimate of the ELBO.

    References:
        Burda, Grosse, Salakhutdinov 2016, arXiv 1509.00519.
    """
    return log_weights.logsumexp(0) - math.log(log_weights.shape[0])


def log_importance_weights(model: VAE, images: Tensor, logits: Tensor, codes: Tensor) -> Tensor:
    """log p(x|z) + log p(z) − log q(z|x).

    Args:
        model: The model.
        images: (B, C, H, W).
        logits: Logits of q(z|x), (B, N, K); (S, B, N, K) if they depend on the codes.
        codes: (S, B, N).

    Returns:
        (S, B), in nats.
    """
    log_q = logits.log_softmax(-1).expand(*codes.shape, -1)
    log_q = log_q.gather(-1, codes.unsqueeze(-1)).squeeze(-1).sum(-1)
    log_likelihood = model.likelihood.log_prob(images, model.decode_codes(codes))
    return log_likelihood + model.prior.log_prob(codes) - log_q


def sampled_bound(
    model: VAE,
    images: Tensor,
    features: Any,
    streams: ImageStreams,
    num_samples: int,
    max_decodes: int = MAX_DECODES,
) -> Tensor:
    """The importance-weighted bound with one-hot codes, in bounded memory.

    Args:
        model: The model.
        images: (B, C, H, W).
        features: What `model.encode` returned; with one group of codes, the logits of q(z|x).
        streams: Random numbers for the B images.
        num_samples: m, at least 1.
        max_decodes: Largest number of codes decoded at once, fewer if a code has many parameters;
            affects the memory, not the value.

    Returns:
        The bound in nats, (B,).
    """

    def draw(count: int) -> Tensor:
        uniform = streams.uniform(count, model.num_latents)
        logits, codes = model.draw(
            features, lambda place, logits: sample_categorical(logits, uniform[..., place])
        )
        return log_importance_weights(model, images, logits, codes)

    at_once = decodes_at_once(model.output_bias.numel(), max_decodes)
    return chunked_bound(draw, num_samples, at_once // len(images))


def decodes_at_once(num_parameters: int, max_decodes: int = MAX_DECODES) -> int:
    """Codes to decode at once, so that memory is bounded.

    Args:
        num_parameters: Numbers that a code is decoded to, P · H · W.
        max_decodes: Largest result.

    Returns:
        At least 1.
    """
    return max(1, min(max_decodes, _MAX_NUMBERS // num_parameters))


def chunked_bound(draw: Callable[[int], Tensor], num_samples: int, chunk: int) -> Tensor:
    """log (1/m) Σ_s w_s, drawing and summing the samples in chunks.

    Args:
        draw: Draws the next S log weights: S → (S, B), in nats.
        num_samples: m, at least 1.
        chunk: Largest number of samples drawn at once; values below 1 count as 1.

    Returns:
        The bound in nats, (B,), float64.
    """
    step = max(1, chunk)
    counts = [min(step, num_samples - start) for start in range(0, num_samples, step)]
    parts = (draw(count).double().logsumexp(0) for count in counts)
    # No list of the parts: they would lie between freed buffers, which the allocator could not use
    # again. With 5,000 samples, that costs gigabytes.
    return reduce(torch.logaddexp, parts) - math.log(num_samples)


@dataclass(frozen=True)
class Enumeration:
    """All codes of a model, decoded once.

    Attributes:
        model: The model.
        parameters: The likelihood's parameters of every code, (K^N, P, H, W).
        log_prior: log p(z) of every code in nats, (K^N,).
        weights: w(z) of the likelihood's linear form, (K^N, C·H·W); None if it has no such form.
        offset: log p(z) + c(z) of the linear form, in nats, (K^N,); None likewise.
    """

    model: VAE
    parameters: Tensor
    log_prior: Tensor
    weights: Tensor | None = None
    offset: Tensor | None = None

    @classmethod
    def of(cls, model: VAE, device: torch.device | str | None = None) -> "Enumeration":
        """Decodes every code.

        Raises:
            ValueError: If there are more than `dvae.options.MAX_ENUMERATION` codes.
        """
        codes = all_codes(model.num_latents, model.num_categories, device)
        log_prior = model.prior.log_prob(codes)
        at_once = decodes_at_once(model.output_bias.numel())
        parts = [model.decode_codes(part) for part in codes.split(at_once)]
        forms = [model.likelihood.linear_form(part) for part in parts]
        linear = [form for form in forms if form is not None]
        if not linear:
            return cls(model, torch.cat(parts), log_prior)
        weights, constants = (torch.cat(tensors) for tensors in zip(*linear, strict=True))
        return cls(model, torch.cat(parts), log_prior, weights, log_prior + constants)


def exact_log_likelihood(enumeration: Enumeration, images: Tensor) -> Tensor:
    """log p(x) = log Σ_z p(z) p(x|z).

    All images share the decoded codes. If log p(x|z) = ⟨x, w(z)⟩ + c(z), as for Bernoulli pixels,
    one matrix product scores them all; otherwise they are scored in chunks of codes.

    Args:
        enumeration: All codes of the model.
        images: (B, C, H, W).

    Returns:
        log p(x) in nats, (B,).
    """
    if enumeration.weights is not None and enumeration.offset is not None:
        scores = images.flatten(1) @ enumeration.weights.T
        return (scores + enumeration.offset).logsumexp(-1)
    model, log_prob = enumeration.model, enumeration.model.likelihood.log_prob
    chunk = max(1, decodes_at_once(model.output_bias.numel()) // len(images))
    parts = enumeration.parameters.unsqueeze(1).split(chunk)
    scores = torch.cat([log_prob(images, part) for part in parts])
    return (scores + enumeration.log_prior.unsqueeze(1)).logsumexp(0)
