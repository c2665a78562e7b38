"""Straight-through estimators: one-hot forward, the Jacobian of a softmax backward."""

from torch import Tensor

from dvae.distributions import softmax
from dvae.estimators.base import StraightThroughEstimator, linearized_softmax
from dvae.estimators.straight_through_options import (
    GappedSTOptions,
    ReinMaxOptions,
    StraightThroughOptions,
    ZGROptions,
)

__all__ = ["ZGR", "GappedST", "ReinMax", "StraightThrough"]


class StraightThrough(StraightThroughEstimator):
    """Plain straight-through: the draw gets the gradient of its mean.

    ∂z/∂logits = diag(p) − p pᵀ at p = softmax(logits): a first-order approximation.

    Bias: none for a cost that is linear in z. Temperature: has no effect. Cost: one softmax.
    Deviations from the paper: categorical instead of Bernoulli.

    References:
        Bengio, Léonard, Courville 2013, arXiv 1308.3432.
    """

    options = StraightThroughOptions

    def _relax(
        self, logits: Tensor, perturbed: Tensor, hard: Tensor, temperature: float | Tensor
    ) -> Tensor:
        return softmax(logits)


class GappedST(StraightThroughEstimator):
    """Gapped straight-through: deterministic perturbations in place of Gumbel noise.

    With D the draw and M the largest logit: the drawn logit is raised to M, and any other logit
    above M − gap is lowered to it: θ' = θ + (M − θ_D) D − max(0, θ + gap − M) (1 − D).
    z = D with the gradient of softmax(θ' / τ), the shifts held constant.

    Bias: about that of straight-through. Variance: none from Gumbel noise in the backward pass.
    Temperature: of the backward pass. Cost: one softmax. Deviations from the paper: none.

    Args:
        gap: Smallest distance between the drawn logit and the others, at least 0; 1 in the paper.

    References:
        Fan et al. 2022, arXiv 2206.07235.
    """

    options = GappedSTOptions

    def __init__(self, gap: float) -> None:
        super().__init__()
        self.gap = gap

    def _relax(
        self, logits: Tensor, perturbed: Tensor, hard: Tensor, temperature: float | Tensor
    ) -> Tensor:
        theta = logits.detach()
        largest = theta.amax(-1, keepdim=True)
        raised = (largest - theta) * hard
        lowered = (theta + self.gap - largest).relu() * (1 - hard)
        return softmax((logits + raised - lowered) / temperature)


class ReinMax(StraightThroughEstimator):
    """ReinMax: Heun's second-order method in place of the first-order one of straight-through.

    ∂z/∂logits = 2 J((D + p_τ) / 2) − J(p) / 2 with J(q) = diag(q) − q qᵀ, p = softmax(logits),
    p_τ = softmax(logits / τ) and the draw D.

    Bias: none for a cost quadratic in z at τ = 1. Temperature: smooths p_τ; the paper's optima lie
    between 1 and 1.5, and below 1 the estimator degrades. Cost: two softmaxes. Deviations from the
    paper: none; its stop-gradient construction has this Jacobian.

    References:
        Liu et al. 2023, arXiv 2304.08612.
    """

    options = ReinMaxOptions

    def _relax(
        self, logits: Tensor, perturbed: Tensor, hard: Tensor, temperature: float | Tensor
    ) -> Tensor:
        theta = logits.detach()
        midpoint = (hard + softmax(theta / temperature)) / 2
        return (
            2 * linearized_softmax(midpoint, logits)
            - linearized_softmax(softmax(theta), logits) / 2
        )


class ZGR(StraightThroughEstimator):
    """ZGR: the limit of Gumbel-Rao at zero temperature, in closed form.

    ∂z/∂logits = ½ (diag(p) − p pᵀ) + ½ (D − p)(D − p)ᵀ: the mean of straight-through and of a
    score-function term that is linear in the cost (DARN).

    Bias: none for a cost quadratic in z; equal to ReinMax at τ = 1. Temperature: has no effect.
    Cost: one softmax. Deviations from the paper: none.

    References:
        Shekhovtsov 2023, "Cold Analysis of Rao-Blackwellized Straight-Through Gumbel-Softmax
        Gradient Estimator", ICML.
    """

    options = ZGROptions

    def _relax(
        self, logits: Tensor, perturbed: Tensor, hard: Tensor, temperature: float | Tensor
    ) -> Tensor:
        p = softmax(logits.detach())
        offset = hard - p
        score = (offset * logits).sum(-1, keepdim=True)
        return (linearized_softmax(p, logits) + offset * score) / 2
