"""Base classes of gradient estimators for categorical samples."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor, nn

from dvae.distributions import (
    as_temperature,
    check_temperature,
    draw_one_hot,
    exponential_noise,
    gumbel_noise,
    log_softmax,
    one_hot,
    without_infinity,
    working_dtype,
)
from dvae.estimators.options import EstimatorOptions

__all__ = [
    "MASKED",
    "CodeSample",
    "Estimator",
    "StraightThroughEstimator",
    "as_temperature",
    "check_temperature",
    "divide",
    "linearized_softmax",
    "replace_gradient",
]

MASKED = -1e30
"""A finite logit whose probability is 0, as that of −inf."""


@dataclass(frozen=True)
class CodeSample:
    """A draw of categorical codes.

    Attributes:
        z: The decoder's input: one-hot or relaxed vectors, (..., N, K). Its gradient with respect
            to the logits is the estimator's.
        codes: The drawn categories, (..., N), int64. They follow softmax(logits) exactly, at
            every temperature and for every estimator.
        logits: The logits that the codes were drawn from, (..., N, K).
        scaled: (logits + noise) / τ if z is its softmax; otherwise None.
        dim: Axis of the K categories in z, logits and scaled, counted from the end. The axes after
            it are those of the latents, so that −3 stands for (..., K, H, W).
    """

    z: Tensor
    codes: Tensor
    logits: Tensor
    scaled: Tensor | None = None
    dim: int = -1

    @classmethod
    def join(cls, samples: Sequence["CodeSample"]) -> "CodeSample":
        """One draw of several groups of latents, whose log-probabilities add up.

        Args:
            samples: The draw of each group, in the order of the latents, with the categories on the
                last axis. The leading axes may have a different number, as those of logits from
                which several codes were drawn.
        """
        leading = torch.broadcast_shapes(*(sample.codes.shape[:-1] for sample in samples))
        logits = [s.logits.expand(*leading, *s.logits.shape[-2:]) for s in samples]
        scaled = [sample.scaled for sample in samples if sample.scaled is not None]
        return cls(
            torch.cat([sample.z for sample in samples], -2),
            torch.cat([sample.codes for sample in samples], -1),
            torch.cat(logits, -2),
            torch.cat(scaled, -2) if len(scaled) == len(samples) else None,
        )

    @property
    def hard_z(self) -> Tensor:
        """One-hot codes with the gradient of z: z itself unless it is relaxed."""
        if self.scaled is None:
            return self.z
        latents = self.z.movedim(self.dim, -1)
        hot = one_hot(self.codes, latents.shape[-1], latents.dtype)
        return replace_gradient(hot, latents).movedim(-1, self.dim)

    @property
    def log_z(self) -> Tensor | None:
        """log z if z is relaxed, for densities in log space; otherwise None."""
        if self.scaled is None:
            return None
        return log_softmax(self.scaled.movedim(self.dim, -1)).movedim(-1, self.dim)


def replace_gradient(value: Tensor, surrogate: Tensor) -> Tensor:
    """A tensor with the exact value of one tensor and the gradient of another.

    Args:
        value: The value, returned bit for bit; it gets no gradient.
        surrogate: Gets the whole gradient; any finite tensor of the same shape.
    """
    # Subtract first: the difference is exactly zero, while (value + s) − s.detach() would round.
    return value.detach() + (surrogate - surrogate.detach())


def linearized_softmax(p: Tensor, logits: Tensor) -> Tensor:
    """A linear function of the logits with the softmax's Jacobian at p: diag(p) − p pᵀ.

    Args:
        p: Probabilities, (..., K), held constant.
        logits: Finite logits, (..., K).
    """
    p = p.detach()
    return p * (logits - (p * logits).sum(-1, keepdim=True))


def divide(logits: Tensor, temperature: float | Tensor) -> Tensor:
    """logits / τ, where a τ that is learned gets the gradient 0 from logits of −inf."""
    if isinstance(temperature, Tensor) and temperature.requires_grad:
        finite = without_infinity(logits, MASKED) / temperature
        return finite.masked_fill(logits == -math.inf, -math.inf)
    return logits / temperature


class Estimator(nn.Module, ABC):
    """Draws categorical codes and defines how gradients pass through the draw.

    Each subclass documents its formula, paper, bias, temperature and cost. Its options class
    declares the ranges and defaults of its arguments.

    Attributes:
        options: The options class, which also declares facts such as `uses_temperature`.
    """

    options: ClassVar[type[EstimatorOptions]]

    @property
    def hard(self) -> bool:
        """Whether the forward value of `z` is exactly one-hot."""
        return self.options.hard

    @property
    def uses_temperature(self) -> bool:
        """Whether the temperature has any effect."""
        return self.options.uses_temperature

    @property
    def score_function(self) -> bool:
        """Whether gradients reach the logits through `surrogate` only, and not through `z`."""
        return self.options.score_function

    def noise_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Shape of the Gumbel noise that `sample` takes for logits of the given shape."""
        return tuple(shape)

    @abstractmethod
    def sample(
        self,
        logits: Tensor,
        temperature: float | Tensor,
        *,
        noise: Tensor | None = None,
        generator: Generator | None = None,
    ) -> CodeSample:
        """Draws codes.

        Args:
            logits: Unnormalised log-probabilities, (..., N, K), of any floating dtype.
            temperature: τ > 0: a number, or a tensor (..., 1) that broadcasts with the logits. A
                tensor is checked on a CPU only, unless it is compiled: see `as_temperature`.
            noise: Standard Gumbel noise of shape `noise_shape(logits.shape)`, for a deterministic
                draw.
            generator: Source of randomness if `noise` is not given; the global one by default.

        Returns:
            The sample; `z` has the dtype of the logits.

        Raises:
            ValueError: If the temperature is not finite and greater than 0.
        """

    def sample_next(self, logits: Tensor, temperature: float | Tensor) -> CodeSample:
        """Draws latents whose logits depend on codes that `sample` drew: one code for each of them.

        Args:
            logits: (..., N, K), with the leading axes of the codes that were drawn before.
            temperature: τ.
        """
        return self.sample(logits, temperature)

    def expected(self, cost: Tensor, sample: CodeSample) -> Tensor:
        """Estimates the expected cost: costs of draws (...) → their mean, a scalar."""
        return cost.mean()

    def surrogate(self, cost: Tensor, sample: CodeSample) -> Tensor:
        """Turns costs into a scalar whose gradient is the estimator's.

        Args:
            cost: Cost of each draw in nats, (...), computed from `sample.z`.
            sample: The draw.

        Returns:
            The expected cost, which is right if the gradient passes through `z`; score-function
            estimators override this method.
        """
        return self.expected(cost, sample)

    def _noise(self, logits: Tensor, noise: Tensor | None, generator: Generator | None) -> Tensor:
        if noise is not None:
            return noise
        shape, dtype = self.noise_shape(logits.shape), working_dtype(logits.dtype)
        return gumbel_noise(shape, dtype=dtype, device=logits.device, generator=generator)

    def _exponential(
        self, logits: Tensor, noise: Tensor | None, generator: Generator | None
    ) -> Tensor:
        """Exponential noise E = e^−g, drawn as it is or from Gumbel noise g that is given."""
        if noise is not None:
            return (-noise).exp()
        shape, dtype = self.noise_shape(logits.shape), working_dtype(logits.dtype)
        return exponential_noise(shape, dtype=dtype, device=logits.device, generator=generator)


class StraightThroughEstimator(Estimator):
    """Draws a one-hot z with the gradient of another function of the logits."""

    def sample(
        self,
        logits: Tensor,
        temperature: float | Tensor,
        *,
        noise: Tensor | None = None,
        generator: Generator | None = None,
    ) -> CodeSample:
        """Draws one-hot codes; see `Estimator.sample`."""
        temperature = as_temperature(temperature)
        # Compute in at least float32 if the logits are in half precision.
        working = logits.to(working_dtype(logits.dtype))
        perturbed = working + self._noise(logits, noise, generator)
        codes, hard = draw_one_hot(perturbed, working.dtype)
        surrogate = self._relax(without_infinity(working, MASKED), perturbed, hard, temperature)
        return CodeSample(replace_gradient(hard, surrogate).to(logits.dtype), codes, logits)

    @abstractmethod
    def _relax(
        self, logits: Tensor, perturbed: Tensor, hard: Tensor, temperature: float | Tensor
    ) -> Tensor:
        """The tensor whose gradient with respect to the logits becomes the gradient of z.

        Args:
            logits: (..., N, K), with −1e30 in place of −inf.
            perturbed: Logits plus noise, (..., N, K); −inf where the logits were.
            hard: The one-hot draw, (..., N, K).
            temperature: τ.
        """
