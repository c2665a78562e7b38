"""Gumbel noise, categorical and Concrete distributions: pure functions of tensors."""

import itertools
import math
from collections.abc import Sequence
from contextlib import suppress
from numbers import Real

import torch
from torch import Generator, Tensor

from dvae.errors import UserError
from dvae.options import MAX_ENUMERATION

__all__ = [
    "all_codes",
    "as_temperature",
    "categorical_entropy",
    "categorical_kl",
    "check_temperature",
    "concrete_log_prob",
    "concrete_sample",
    "draw_one_hot",
    "exponential_from_uniform",
    "exponential_noise",
    "gumbel_from_uniform",
    "gumbel_noise",
    "log_ratio",
    "log_softmax",
    "one_hot",
    "sample_categorical",
    "softmax",
    "without_infinity",
    "working_dtype",
]

_VECTOR = {"AVX512": 16, "AVX2": 8}.get(torch.backends.cpu.get_cpu_capability(), 16)
"""Numbers in float32 that a CPU computes with at once."""


def working_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which noise and softmaxes are computed: at least float32."""
    return torch.promote_types(dtype, torch.float32)


def log_softmax(logits: Tensor) -> Tensor:
    """log softmax(logits), (..., K) → (..., K); torch's own is slow for short rows on a CPU."""
    if logits.is_cuda or logits.shape[-1] >= _VECTOR:
        return logits.log_softmax(-1)
    return logits - logits.logsumexp(-1, keepdim=True)


def softmax(logits: Tensor) -> Tensor:
    """Probabilities over the last axis, (..., K) → (..., K); fast like `log_softmax`."""
    if logits.is_cuda or logits.shape[-1] >= _VECTOR:
        return logits.softmax(-1)
    return log_softmax(logits).exp()


def check_temperature(temperature: float | Tensor) -> float:
    """Returns a temperature, a number or a tensor with one element, as a number.

    Raises:
        ValueError: If it is not a finite number > 0, or so close to 0 or so large that
            (logits + noise) / τ overflows in float32: below 1e-30 or above 1e30.
    """
    if isinstance(temperature, Tensor) and temperature.numel() == 1:
        temperature = temperature.item()
    value = float(temperature) if isinstance(temperature, Real) else math.nan
    if 1e-30 <= value <= 1e30:
        return value
    limits = " (possible: 1e-30 to 1e30)" if 0 < value < math.inf else ""
    raise UserError(f"temperature: expected a finite number > 0, found {temperature}{limits}")


def as_temperature(temperature: float | Tensor) -> float | Tensor:
    """Checks a temperature, but not a tensor on a GPU, which would have to wait for it."""
    if not isinstance(temperature, Tensor):
        return check_temperature(temperature)
    if temperature.device.type == "cpu" and not torch.compiler.is_compiling():
        # Under vmap, a tensor has no single value.
        with suppress(RuntimeError):
            for end in temperature.aminmax() if temperature.numel() > 1 else (temperature,):
                check_temperature(end)
    return temperature


def without_infinity(values: Tensor, replacement: float = 0.0) -> Tensor:
    """Replaces −inf, with gradient 0; on a CPU several times as fast as torch.where."""
    return torch.nn.functional.threshold(values, -math.inf, replacement)


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
    """Turns uniform numbers in [0, 1] into exponential noise: see `exponential_noise`."""
    info = torch.finfo(u.dtype)
    return u.clamp(info.tiny, 1 - info.eps / 2).log_().neg_()


def gumbel_noise(
    shape: Sequence[int],
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
    generator: Generator | None = None,
) -> Tensor:
    """Draws standard Gumbel noise, g = −log E with E from `exponential_noise`: always finite.

    Example:
        >>> gumbel_noise((2, 3)).shape
        torch.Size([2, 3])
    """
    draw = working_dtype(dtype)
    noise = exponential_noise(shape, dtype=draw, device=device, generator=generator)
    return noise.log_().neg_().to(dtype)


def gumbel_from_uniform(u: Tensor) -> Tensor:
    """Turns uniform numbers in [0, 1] into standard Gumbel noise."""
    return exponential_from_uniform(u).log_().neg_()


def one_hot(codes: Tensor, num_categories: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Turns integer codes (...) into one-hot vectors (..., K) of exact zeros and ones."""
    z = torch.zeros(*codes.shape, num_categories, dtype=dtype, device=codes.device)
    # vmap knows no scatter in place, and torch 2.11 compiles one of an integer to integers.
    return z.scatter(-1, codes.unsqueeze(-1), 1.0)


def draw_one_hot(perturbed: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The arg max of logits + Gumbel noise, which is an exact draw from softmax(logits).

    Args:
        perturbed: Logits + Gumbel noise, (..., K).
        dtype: Dtype of the vectors.

    Returns:
        Codes (...), int64, and their one-hot vectors (..., K), without gradient. Logits that define
        no distribution (one is NaN or +inf, or all are −inf) give a vector of NaN.
    """
    largest, codes = perturbed.detach().max(-1)
    hard = one_hot(codes, perturbed.shape[-1], dtype)
    # The difference is 0, or NaN if there is no distribution.
    return codes, hard.add_((largest - largest).to(dtype).unsqueeze(-1))


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

    Takes one uniform number per code, where the Gumbel-max trick takes K. Has no gradient.

    Args:
        logits: Unnormalised log-probabilities, (..., K).
        uniform: Uniform numbers in [0, 1), of a shape that broadcasts with (...).

    Returns:
        Codes in 0 … K − 1, int64, of the broadcast shape.
    """
    p = softmax(logits.to(working_dtype(logits.dtype)))
    # A category of probability 0 gets exactly the sum before it, however a GPU rounds the sums.
    cumulative = torch.where(p > 0, p.cumsum(-1), 0).cummax(-1).values
    # Only the first K − 1 sums are searched, so that rounding of the total cannot give the code K.
    bounds = cumulative[..., :-1] / cumulative[..., -1:]
    numbers, _ = torch.broadcast_tensors(uniform.to(bounds.dtype), bounds[..., 0])
    rows = numbers.shape[numbers.ndim + 1 - bounds.ndim :]
    own = numbers.reshape(-1, *rows).movedim(0, -1).contiguous()
    codes = torch.searchsorted(bounds.expand(*rows, -1).contiguous(), own, right=True)
    return codes.movedim(-1, 0).reshape(numbers.shape)


def categorical_entropy(logits: Tensor) -> Tensor:
    """Entropy of softmax(logits) in nats: (..., K) → (...), in [0, ln K]."""
    log_probs = log_softmax(logits)
    return -(log_probs.exp() * without_infinity(log_probs)).sum(-1)


def categorical_kl(logits: Tensor, prior_logits: Tensor) -> Tensor:
    """KL(softmax(logits) ‖ softmax(prior_logits)) = Σ_k q_k (log q_k − log p_k).

    Args:
        logits: Unnormalised log-probabilities of q, (..., K).
        prior_logits: Unnormalised log-probabilities of p, of a shape that broadcasts with q's.

    Returns:
        The divergence in nats, (...): at least 0, and at most ln K for a uniform p. Value and
        gradient are finite for all logits that are finite or −inf. If p_k = 0 < q_k, the divergence
        is infinite, for which q_k times the largest number of the dtype stands here.
    """
    log_q = log_softmax(logits)
    return (log_q.exp() * log_ratio(log_q, log_softmax(prior_logits))).sum(-1)


def log_ratio(log_q: Tensor, log_p: Tensor) -> Tensor:
    """log q_k − log p_k, to be multiplied by q_k or z_k: 0 if q_k = 0, and finite if p_k = 0."""
    return without_infinity(log_q - log_p.clamp_min(torch.finfo(log_p.dtype).min))


def concrete_sample(logits: Tensor, temperature: float | Tensor, noise: Tensor) -> Tensor:
    """Draws from the Concrete distribution: log z = log softmax((logits + noise) / τ).

    Args:
        logits: Unnormalised log-probabilities, (..., K).
        temperature: τ > 0, a number, or a tensor (..., 1) that broadcasts with the logits.
        noise: Standard Gumbel noise of a shape that broadcasts with the logits.

    Returns:
        log z, (..., K), which stays finite at low temperatures, where z underflows to 0. It is
        −inf where the logits are.

    References:
        Maddison, Mnih, Teh 2017, arXiv 1611.00712; Jang, Gu, Poole 2017, arXiv 1611.01144.
    """
    return log_softmax((logits + noise) / as_temperature(temperature))


def concrete_log_prob(log_z: Tensor, logits: Tensor, temperature: float | Tensor) -> Tensor:
    """Log-density of y = log z for a Concrete z (the ExpConcrete distribution).

    log p(y) = ln Γ(K) + (K − 1) ln τ + Σ_k (α_k − τ y_k) − K ln Σ_k exp(α_k − τ y_k)

    The difference of two such log-densities at the same y equals that of the Concrete
    log-densities at z, because the Jacobian of the exponential cancels.

    Categories with y_k = −inf are left out of K and of all sums: the density is that of the others.
    A sample has such categories where the logits that it was drawn from are −inf.

    Args:
        log_z: y, (..., K), with Σ_k exp y_k = 1.
        logits: α, unnormalised log-probabilities, (..., K).
        temperature: τ > 0: a number, or a tensor (..., 1), such as (n, 1) for n rows.

    Returns:
        The log-density in nats, with respect to Lebesgue measure on y_1 … y_{K−1}: (...), the
        shapes of all arguments without their last axis, broadcast together.

    Raises:
        ValueError: If the temperature is not valid, or its last axis is longer than 1.

    References:
        Maddison, Mnih, Teh 2017, appendix C.3.
    """
    absent = log_z == -math.inf
    score = logits - as_temperature(temperature) * log_z.masked_fill(absent, 0)
    tau = torch.as_tensor(temperature, dtype=score.dtype, device=score.device)
    if tau.ndim:
        if tau.shape[-1] != 1:
            raise UserError(f"temperature: expected a shape (..., 1), found {tuple(tau.shape)}")
        tau = tau.squeeze(-1)
    k = (~absent).sum(-1).to(score.dtype)
    total = score.masked_fill(absent, 0).sum(-1)
    normalizer = score.masked_fill(absent, -math.inf).logsumexp(-1)
    return k.lgamma() + (k - 1) * tau.log() + total - k * normalizer
