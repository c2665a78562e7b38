"""Bias and variance of gradient estimators, measured against the exact gradient."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dvae.estimators import ESTIMATORS
from dvae.estimators.base import Estimator
from dvae.estimators.exact import Exact
from dvae.models.vae import VAE
from dvae.options import MAX_ENUMERATION

__all__ = ["Quality", "compare", "draws", "measure", "signal_to_noise"]


@dataclass(frozen=True)
class Quality:
    """Quality of one estimator at one temperature, for the gradient of the distortion.

    g is the exact gradient with respect to the logits of a batch of images, as one vector; ĝ is an
    estimate of it.

    Attributes:
        estimator: Name.
        temperature: τ; NaN for an estimator that has none.
        bias: ‖E ĝ − g‖ / ‖g‖, corrected for the noise of a finite number of estimates.
        bias_error: Standard error of the bias.
        variance: E ‖ĝ − E ĝ‖² / ‖g‖².
        cosine: Mean cosine between ĝ and g.
        microseconds: Median time of one estimate, including the passes through the decoder.
    """

    estimator: str
    temperature: float
    bias: float
    bias_error: float
    variance: float
    cosine: float
    microseconds: float

    @property
    def biased(self) -> bool:
        """Whether the bias is significant: more than 2 standard errors; otherwise it is noise."""
        return self.bias > 2 * self.bias_error

    @property
    def variance_of_a_second(self) -> float:
        """Variance of the mean of all estimates that one second gives: variance × time."""
        return self.variance * self.microseconds / 1e6


def draws(
    vae: VAE, estimator: Estimator, logits: Tensor, images: Tensor, temperature: float, count: int
) -> Iterator[Tensor]:
    """Yields independent estimates of the distortion's gradient with respect to the logits.

    Args:
        vae: The model, in evaluation mode.
        estimator: The estimator.
        logits: Point at which the gradient is estimated, (B, N, K).
        images: (B, C, H, W).
        temperature: τ.
        count: Number of estimates.

    Yields:
        Gradients of the sum over images, (B, N, K), in nats.
    """
    for _ in range(count):
        leaf = logits.detach().requires_grad_()
        sample = estimator.sample(leaf, temperature)
        loss = estimator.surrogate(vae.distortion(images, sample.z), sample) * len(images)
        yield torch.autograd.grad(loss, leaf)[0]


def measure(
    vae: VAE,
    name: str,
    estimator: Estimator,
    images: Tensor,
    temperature: float,
    exact: Tensor,
    count: int,
) -> Quality:
    """Measures one estimator at one temperature.

    Args:
        vae: The model, in evaluation mode.
        name: Name of the estimator.
        estimator: The estimator.
        images: (B, C, H, W).
        temperature: τ.
        exact: The exact gradient, (B, N, K).
        count: Number of estimates, at least 2.
    """
    logits = vae.encode(images).detach()
    target, norm = exact.flatten().double(), exact.double().norm()
    total, square = torch.zeros_like(target), 0.0
    cosines, times = [], []
    estimates = draws(vae, estimator, logits, images, temperature, count)
    for _ in range(count):
        start = time.perf_counter()
        flat = next(estimates).flatten().double()
        times.append(time.perf_counter() - start)
        total += flat
        square += (flat @ flat).item()
        cosines.append(torch.nn.functional.cosine_similarity(flat, target, 0).item())
    mean = total / count
    variance = max(0.0, (square / count - (mean @ mean).item()) * count / (count - 1))
    # The squared distance of the mean overstates the squared bias by the variance of the mean.
    noise = variance / count
    squared_bias = (mean - target).square().sum().item() - noise
    error = math.sqrt(noise) / norm.item()
    return Quality(
        name,
        temperature if estimator.uses_temperature else math.nan,
        math.sqrt(max(squared_bias, 0.0)) / norm.item(),
        error,
        variance / norm.item() ** 2,
        sum(cosines) / count,
        1e6 * sorted(times)[count // 2],
    )


def compare(
    vae: VAE,
    images: Tensor,
    estimators: Sequence[str],
    temperatures: Sequence[float],
    count: int,
) -> Iterator[Quality]:
    """Measures estimators at each temperature; those without a temperature only once.

    Args:
        vae: A model with at most 16,384 codes.
        images: (B, C, H, W).
        estimators: Names in `dvae.estimators.ESTIMATORS`.
        temperatures: Values of τ.
        count: Number of estimates per estimator and temperature, at least 2.

    Yields:
        One result per estimator and temperature.

    Raises:
        ValueError: If there are more than 16,384 codes, or if they are drawn in several groups.
    """
    if vae.num_categories**vae.num_latents > MAX_ENUMERATION:
        raise ValueError(
            f"model: expected at most {MAX_ENUMERATION:,} codes for an exact gradient, found "
            f"{vae.num_categories}^{vae.num_latents}"
        )
    if not vae.is_factorized:
        raise ValueError(
            "model: expected codes that are drawn all at once, as gradients are compared at their "
            f"logits, found {len(vae.encoder.places)} groups"
        )
    vae.eval()
    logits = vae.encode(images).detach()
    exact = next(draws(vae, Exact(), logits, images, 1.0, 1))
    for name in estimators:
        estimator = ESTIMATORS[name]().build().to(images.device)
        # Without noise all estimates are equal: a few are enough to measure the time.
        few = count if math.prod(estimator.noise_shape(logits.shape)) else min(count, 5)
        for temperature in temperatures if estimator.uses_temperature else [1.0]:
            # Warm up running baselines, which start at 0.
            for _ in draws(vae, estimator, logits, images, temperature, min(few, 20)):
                pass
            yield measure(vae, name, estimator, images, temperature, exact, few)


def signal_to_noise(gradients: Tensor) -> Tensor:
    """‖mean gradient‖ / sqrt(total variance) of independent estimates (R, ...), a scalar.

    The squared norm of the mean is corrected for its sampling noise, and clamped at 0.
    """
    flat = gradients.flatten(1)
    variance = flat.var(0).sum()
    signal = flat.mean(0).square().sum() - variance / len(flat)
    return (signal.clamp_min(0) / variance.clamp_min(torch.finfo(flat.dtype).tiny)).sqrt()
