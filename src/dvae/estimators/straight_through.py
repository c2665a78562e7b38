"""Straight-through estimators: one-hot forward, the Jacobian of a softmax backward."""

from typing import ClassVar

from torch import Tensor

from dvae.distributions import softmax
from dvae.estimators.base import StraightThroughEstimator, linearized_softmax
from dvae.estimators.options import EstimatorOptions
from dvae.estimators.straight_through_options import (
    GappedSTOptions,
    ReinMaxCVOptions,
    ReinMaxOptions,
    StraightThroughOptions,
    ZGROptions,
)

__all__ = ["ZGR", "GappedST", "ReinMax", "ReinMaxCV", "StraightThrough"]


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

    options: ClassVar[type[EstimatorOptions]] = ReinMaxOptions

    def _relax(
        self, logits: Tensor, perturbed: Tensor, hard: Tensor, temperature: float | Tensor
    ) -> Tensor:
        theta = logits.detach()
        midpoint = (hard + softmax(theta / temperature)) / 2
        return (
            2 * linearized_softmax(midpoint, logits)
            - linearized_softmax(softmax(theta), logits) / 2
        )


class ReinMaxCV(ReinMax):
    """ReinMax with a control variate: a baseline for its score-function half.

    At τ = 1, ReinMax's gradient is ½ J(p) v + ½ (D − p) (D − p)ᵀv with v = ∂f/∂z at the draw: half
    straight-through, half a score function whose cost is linearised. The control variate takes
    c (D − p) b from it, where b is the mean of (D − p)ᵀv over all other rows of the batch. Both
    halves vary with the curvature of the cost, which is what b measures; with two equally likely
    categories and a quadratic cost, c = 1 removes all of the variance of a latent.

    Bias: exactly ReinMax's, since E (D − p) = 0 and the other rows do not depend on D; with batch
    normalization in the decoder they do, a little. Rows are all axes before N, and each has a cost
    of its own. A single row has no others, and is plain ReinMax. Temperature: as in ReinMax. Cost:
    as ReinMax.

    Deviations from the paper: the control variate is our own. The authors' code takes
    c (J_GS − J_GR) at the midpoint (D + p) / 2, one relaxed sample less their mean. But ReinMax is
    a constant given the draw: a term whose mean given the draw is 0 can only add variance, and
    any other moves the mean.

    References:
        Wang, Bui 2026, arXiv 2603.08257; Liu et al. 2023, arXiv 2304.08612.
    """

    options = ReinMaxCVOptions

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = weight

    def _relax(
        self, logits: Tensor, perturbed: Tensor, hard: Tensor, temperature: float | Tensor
    ) -> Tensor:
        reinmax = super()._relax(logits, perturbed, hard, temperature)
        others = logits.shape[:-2].numel() - 1
        if others < 1 or logits.ndim < 3:
            return reinmax
        offset = hard - softmax(logits.detach())
        # Its gradient is D − p. A row whose logits are NaN must not reach the others.
        score = (offset * logits).sum(-1, keepdim=True).nan_to_num()
        rows = tuple(range(logits.ndim - 2))
        return reinmax - self.weight * offset * (score.sum(rows, keepdim=True) - score) / others


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
