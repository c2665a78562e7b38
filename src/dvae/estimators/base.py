"""The contract of gradient estimators for categorical samples."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from dvae.distributions import gumbel_noise, working_dtype

__all__ = [
    "CodeSample",
    "Estimator",
    "as_temperature",
    "check_temperature",
    "perturb",
    "replace_gradient",
]


@dataclass(frozen=True)
class CodeSample:
    """A draw of categorical codes.

    Attributes:
        z: What the decoder sees: one-hot or relaxed vectors, (..., N, K), differentiable with
            respect to the logits in the way of the estimator.
        codes: The drawn categories, (..., N), int64. They follow softmax(logits) exactly, at
            every temperature and for every estimator.
        logits: The logits that they were drawn from, (..., N, K).
    """

    z: Tensor
    codes: Tensor
    logits: Tensor


def check_temperature(temperature: float) -> float:
    """Returns the temperature.

    Raises:
        ValueError: If it is not finite and greater than 0.
    """
    if not (math.isfinite(temperature) and temperature > 0):
        raise ValueError(f"temperature: expected a finite number > 0, found {temperature}")
    return temperature


def replace_gradient(value: Tensor, surrogate: Tensor) -> Tensor:
    """A tensor with the exact value of one tensor and the gradient of another.

    Args:
        value: The value, passed on bit for bit; its own gradient is cut.
        surrogate: Receives the whole gradient; any finite tensor of the same shape.
    """
    # The difference is formed first and is exactly zero; (value − s.detach()) + s would round.
    return value.detach() + (surrogate - surrogate.detach())


def perturb(logits: Tensor, noise: Tensor | None, generator: Generator | None) -> Tensor:
    """Logits plus standard Gumbel noise, in at least single precision."""
    dtype = working_dtype(logits.dtype)
    if noise is None:
        noise = gumbel_noise(logits.shape, dtype=dtype, device=logits.device, generator=generator)
    return logits.to(dtype) + noise


class Estimator(nn.Module, ABC):
    """Draws categorical codes and defines how gradients pass through the draw.

    Subclasses say in their docstring: formula, paper, bias, what the temperature means, cost.

    Attributes:
        hard: Whether the forward value of `z` is exactly one-hot.
    """

    hard: bool = True

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
            temperature: τ > 0; a zero-dimensional tensor is taken as checked.
            noise: Standard Gumbel noise, (..., N, K); the draw is then deterministic.
            generator: Source of the noise where none is given; the global one by default.

        Returns:
            The sample; `z` has the dtype of the logits.

        Raises:
            ValueError: If the temperature is a number that is not finite and greater than 0.
        """

    def surrogate(self, cost: Tensor, sample: CodeSample) -> Tensor:
        """Turns costs into a scalar whose gradient is the estimator's.

        Args:
            cost: Cost of each draw, in nats, (...): computed from `sample.z`.
            sample: The draw.

        Returns:
            The mean cost: right for all estimators whose gradient passes through `z`.
        """
        return cost.mean()

    def forward(self, logits: Tensor, temperature: float | Tensor) -> Tensor:
        """Draws and returns `z` alone, (..., N, K)."""
        return self.sample(logits, temperature).z


def as_temperature(temperature: float | Tensor) -> float | Tensor:
    """Checks a temperature given as a number; a tensor is not read, which would synchronise."""
    return temperature if isinstance(temperature, torch.Tensor) else check_temperature(temperature)
