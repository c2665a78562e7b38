"""Estimators Rao-Blackwellised over the Gumbel noise, given the draw."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor

from dvae.distributions import (
    draw_one_hot,
    softmax,
    without_infinity,
    working_dtype,
)
from dvae.estimators.base import (
    MASKED,
    CodeSample,
    Estimator,
    as_temperature,
    linearized_softmax,
    replace_gradient,
)
from dvae.estimators.options import EstimatorOptions
from dvae.estimators.rao_options import GumbelRaoOptions, ReinMaxRaoOptions

__all__ = ["GumbelRao", "ReinMaxRao", "conditional_relaxation"]

_CHUNK = 10
"""Relaxed samples computed at a time: few enough to stay in the cache of a CPU."""


def conditional_relaxation(
    p: Tensor, hard: Tensor, temperature: float | Tensor, exponential: Tensor
) -> Tensor:
    """Draws softmax((logits + g) / τ) given that the arg max is the drawn category i.

    Given i, logits_k + g_k is −log(E_i / Z) for k = i and −log(E_k / e^logits_k + E_i / Z)
    otherwise, with standard exponential E and Z = Σ e^logits. Up to a common factor the relaxed
    sample is therefore w^(−1/τ) with w_i = 1 and w_k = 1 + E_k / (E_i p_k), which takes one power
    per entry and no logarithm of the logits.

    Args:
        p: softmax(logits), (..., K).
        hard: The draw, one-hot, (..., K).
        temperature: τ > 0.
        exponential: Standard exponential noise, > 0, (R, ..., K).

    Returns:
        Relaxed samples, (R, ..., K).

    References:
        Paulus, Maddison, Krause 2021, arXiv 2010.04838; Maddison, Tarlow 2017 for the conditionals.
    """
    own = (exponential * hard).sum(-1, keepdim=True)
    # The drawn category gets w = 1; a category of probability 0 gets w = ∞ and weight 0.
    w = (exponential * ((1 - hard) / p)).div_(own).add_(1)
    # exp(log) is twice as fast as a power.
    power = w.log_().div_(-temperature).exp_()
    return power.div_(power.sum(-1, keepdim=True))


class _MeanJacobian(torch.autograd.Function):
    """Returns zeros that have the Jacobian mean_r (diag(y_r) − y_r y_rᵀ), for y (R, ..., K)."""

    generate_vmap_rule = True

    @staticmethod
    def forward(logits: Tensor, y: Tensor) -> Tensor:
        return torch.zeros_like(logits)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (y,) = ctx.saved_tensors
        parts = (
            (part * (grad - (part * grad).sum(-1, keepdim=True))).sum(0) for part in y.split(_CHUNK)
        )
        # Not summed in place, since vmap may map y but not the gradient.
        return sum(parts) / len(y), None


class GumbelRao(Estimator):
    """Gumbel-Rao: straight-through Gumbel-Softmax, averaged over the noise given the draw.

    z = D with the Jacobian (1/τ) mean_r (diag(y_r) − y_r y_rᵀ), where the y_r are relaxed samples
    conditioned on the draw D.

    Bias: that of straight-through Gumbel-Softmax; the variance is smaller. Temperature: of the
    backward pass. Cost: R relaxed samples; one pass through the decoder for any R. Deviations
    from the paper: none.

    Args:
        num_relaxations: R, relaxed samples for each draw, at least 1.

    References:
        Paulus, Maddison, Krause 2021, arXiv 2010.04838.
    """

    options: ClassVar[type[EstimatorOptions]] = GumbelRaoOptions

    def __init__(self, num_relaxations: int) -> None:
        super().__init__()
        self.num_relaxations = num_relaxations

    def noise_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """(1 + R, ..., N, K): noise for the draw, then for the R relaxed samples."""
        return (1 + self.num_relaxations, *shape)

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
        working = logits.to(working_dtype(logits.dtype))
        with torch.no_grad():
            exponential = self._exponential(logits, noise, generator)
            codes, hard = draw_one_hot(working - exponential[0].log(), working.dtype)
            p = softmax(working)
        surrogate = self._relax(
            without_infinity(working, MASKED), p, hard, temperature, exponential[1:]
        )
        z = replace_gradient(hard, surrogate)
        return CodeSample(z.to(logits.dtype), codes, logits)

    def _relax(
        self,
        logits: Tensor,
        p: Tensor,
        hard: Tensor,
        temperature: float | Tensor,
        exponential: Tensor,
    ) -> Tensor:
        """The tensor whose gradient with respect to the logits becomes the gradient of z.

        Args:
            logits: (..., K), with −1e30 in place of −inf.
            p: Probabilities from which the relaxed samples are drawn, (..., K).
            hard: The one-hot draw, (..., K).
            temperature: τ.
            exponential: Standard exponential noise, (R, ..., K).
        """
        with torch.no_grad():
            chunks = exponential.split(_CHUNK)
            y = torch.cat([conditional_relaxation(p, hard, temperature, e) for e in chunks])
        return _MeanJacobian.apply(logits, y) / temperature


class ReinMaxRao(GumbelRao):
    """ReinMax-Rao: ReinMax with a Gumbel-Rao Jacobian in its midpoint.

    ∂z/∂logits = 2 J_GR((D + p) / 2) − (diag(p) − p pᵀ) / 2, where J_GR(q) is the Jacobian of
    Gumbel-Rao for the probabilities q, given the draw D.

    Bias: not exact even for a linear cost; in the paper's experiments close to ReinMax's, with less
    variance. Temperature: of the relaxed samples. Cost: as Gumbel-Rao. Deviations from the paper:
    the second term is evaluated at p, as in ReinMax; the paper's equation has the midpoint there.

    Args:
        num_relaxations: R, relaxed samples for each draw, at least 1.

    References:
        Wang, Bui 2026, arXiv 2603.08257, equation 17.
    """

    options = ReinMaxRaoOptions

    def _relax(
        self,
        logits: Tensor,
        p: Tensor,
        hard: Tensor,
        temperature: float | Tensor,
        exponential: Tensor,
    ) -> Tensor:
        midpoint = super()._relax(logits, (hard + p) / 2, hard, temperature, exponential)
        return 2 * midpoint - linearized_softmax(p, logits) / 2
