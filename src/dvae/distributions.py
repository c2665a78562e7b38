"""Gumbel noise, categorical and Concrete distributions: pure functions of tensors."""

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from dvae.options import MAX_ENUMERATION

__all__ = [
    "all_codes",
    "categorical_entropy",
    "categorical_kl",
    "concrete_log_prob",
    "concrete_sample",
    "exponential_from_uniform",
    "exponential_noise",
    "gumbel_from_uniform",
    "gumbel_noise",
    "log_softmax",
    "one_hot",
    "sample_categorical",
    "softmax",
    "working_dtype",
]


_VECTOR = {"AVX512": 16, "AVX2": 8}.get(torch.backends.cpu.get_cpu_capability(), 16)
"""Numbers in float32 that a CPU computes with at once."""
_MANY = 64
"""Categories from which on a binary search takes the place of comparisons."""


def working_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which noise and softmaxes are computed: at least float32."""
    return torch.promote_types(dtype, torch.float32)


def log_softmax(logits: Tensor) -> Tensor:
    """log softmax(logits) over the last axis, (..., K) → (..., K).

    On a CPU, torch's own function is slow for rows that do not fill a vector.
    """
    if logits.is_cuda or logits.shape[-1] >= _VECTOR:
        return logits.log_softmax(-1)
    return logits - logits.logsumexp(-1, keepdim=True)


def softmax(logits: Tensor) -> Tensor:
    """Probabilities over the last axis, (..., K) → (..., K); fast like `log_softmax`."""
    if logits.is_cuda or logits.shape[-1] >= _VECTOR:
        return logits.softmax(-1)
    return log_softmax(logits).exp()


def exponential_noise(
    shape: Sequence[int],
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
    generator: Generator | None = None,
) -> Tensor:
    """Draws standard exponential noise, E = −log u with u uniform on (0, 1).

    u is drawn in at least float32 and clamped away from 0 and 1, so that the noise and its
    logarithm are always finite.

    Args:
        shape: Shape of the result.
        dtype: Dtype of the result.
        device: Device of the result.
        generator: Source of randomness; the global one by default.

    Returns:
        Noise of the given shape, finite and greater than 0.
    """
    draw = working_dtype(dtype)
    u = torch.rand(tuple(shape), dtype=draw, device=device, generator=generator)
    return exponential_from_uniform(u).to(dtype)


def exponential_from_uniform(u: Tensor) -> Tensor:
    """Turns uniform numbers in [0, 1] into exponential noise, in place: see `exponential_noise`."""
    info = torch.finfo(u.dtype)
    return u.clamp_(info.tiny, 1 - info.eps / 2).log_().neg_()


def gumbel_noise(
    shape: Sequence[int],
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
    generator: Generator | None = None,
) -> Tensor:
    """Draws standard Gumbel noise, g = −log E with E from `exponential_noise`.

    Args:
        shape: Shape of the result.
        dtype: Dtype of the result.
        device: Device of the result.
        generator: Source of randomness; the global one by default.

    Returns:
        Noise of the given shape, finite in every entry.

    Example:
        >>> gumbel_noise((2, 3)).shape
        torch.Size([2, 3])
    """
    draw = working_dtype(dtype)
    noise = exponential_noise(shape, dtype=draw, device=device, generator=generator)
    return noise.log_().neg_().to(dtype)


def gumbel_from_uniform(u: Tensor) -> Tensor:
    """Turns uniform numbers in [0, 1] into standard Gumbel noise, in place."""
    return exponential_from_uniform(u).log_().neg_()


def one_hot(codes: Tensor, num_categories: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Turns integer codes (...) into one-hot vectors (..., K) of exact zeros and ones."""
    z = torch.zeros(*codes.shape, num_categories, dtype=dtype, device=codes.device)
    return z.scatter_(-1, codes.unsqueeze(-1), 1)


def all_codes(
    num_latents: int, num_categories: int, device: torch.device | str | None = None
) -> Tensor:
    """Every code in lexicographic order, (K^N, N).

    Raises:
        ValueError: If there are more than `dvae.options.MAX_ENUMERATION` codes.

    Example:
        >>> all_codes(2, 2).tolist()
        [[0, 0], [0, 1], [1, 0], [1, 1]]
    """
    count = num_categories**num_latents
    if count > MAX_ENUMERATION:
        raise ValueError(
            f"enumeration: expected at most {MAX_ENUMERATION:,} codes, found "
            f"{num_categories}^{num_latents}"
        )
    codes = itertools.product(range(num_categories), repeat=num_latents)
    return torch.tensor(list(codes), device=device)


def sample_categorical(logits: Tensor, uniform: Tensor) -> Tensor:
    """Draws codes from softmax(logits) by inverting the cumulative distribution.

    Takes one uniform number per code, where the Gumbel-max trick takes K. Meant for evaluation,
    which draws many codes and needs no gradient.

    Args:
        logits: Unnormalised log-probabilities, (..., K).
        uniform: Uniform numbers in [0, 1), of a shape that broadcasts with (...).

    Returns:
        Codes in 0 … K − 1, int64, of the broadcast shape.
    """
    cumulative = softmax(logits.to(working_dtype(logits.dtype))).cumsum(-1)
    # Only the first K − 1 sums are compared, so that rounding of the total can give neither the
    # code K nor a last category of probability 0.
    bounds = cumulative[..., :-1] / cumulative[..., -1:]
    if logits.shape[-1] <= _MANY:
        return (uniform.unsqueeze(-1) >= bounds).sum(-1)
    # A binary search finds the same code, and needs no memory for K comparisons of each number.
    shape = torch.broadcast_shapes(uniform.shape, bounds.shape[:-1])
    rows = shape[len(shape) + 1 - bounds.ndim :]
    numbers = uniform.to(bounds.dtype).expand(shape).reshape(-1, *rows).movedim(0, -1)
    bounds = bounds.expand(*rows, -1).contiguous()
    codes = torch.searchsorted(bounds, numbers.contiguous(), right=True)
    return codes.movedim(-1, 0).reshape(shape)


def categorical_entropy(logits: Tensor) -> Tensor:
    """Entropy of softmax(logits) in nats: (..., K) → (...), in [0, ln K]."""
    log_probs = log_softmax(logits)
    return -(log_probs.exp() * log_probs).sum(-1)


def categorical_kl(logits: Tensor, prior_logits: Tensor) -> Tensor:
    """KL(softmax(logits) ‖ softmax(prior_logits)) = Σ_k q_k (log q_k − log p_k).

    Args:
        logits: Unnormalised log-probabilities of q, (..., K).
        prior_logits: Unnormalised log-probabilities of p, of a shape that broadcasts with q's.

    Returns:
        The divergence in nats, (...): at least 0, and at most ln K for a uniform p. Value and
        gradient are finite for all finite logits.
    """
    log_q = log_softmax(logits)
    return (log_q.exp() * (log_q - log_softmax(prior_logits))).sum(-1)


def concrete_sample(logits: Tensor, temperature: float | Tensor, noise: Tensor) -> Tensor:
    """Draws from the Concrete distribution: log z = log softmax((logits + noise) / τ).

    Args:
        logits: Unnormalised log-probabilities, (..., K).
        temperature: τ > 0.
        noise: Standard Gumbel noise of a shape that broadcasts with the logits.

    Returns:
        log z, (..., K), which stays finite at low temperatures, where z underflows to 0.

    References:
        Maddison, Mnih, Teh 2017, arXiv 1611.00712; Jang, Gu, Poole 2017, arXiv 1611.01144.
    """
    return log_softmax((logits + noise) / temperature)


def concrete_log_prob(log_z: Tensor, logits: Tensor, temperature: float | Tensor) -> Tensor:
    """Log-density of y = log z for a Concrete z (the ExpConcrete distribution).

    log p(y) = ln Γ(K) + (K − 1) ln τ + Σ_k (α_k − τ y_k) − K ln Σ_k exp(α_k − τ y_k)

    The difference of two such log-densities at the same y equals that of the Concrete
    log-densities at z, because the Jacobian of the exponential cancels.

    Args:
        log_z: y, (..., K), with Σ_k exp y_k = 1.
        logits: α, unnormalised log-probabilities, (..., K).
        temperature: τ > 0.

    Returns:
        The log-density in nats, (...), with respect to Lebesgue measure on y_1 … y_{K−1}.

    References:
        Maddison, Mnih, Teh 2017, appendix C.3.
    """
    k = logits.shape[-1]
    score = logits - temperature * log_z
    log_temperature = torch.as_tensor(temperature, dtype=score.dtype, device=score.device).log()
    return math.lgamma(k) + (k - 1) * log_temperature + score.sum(-1) - k * score.logsumexp(-1)
