"""Estimators that differentiate a Gumbel-Softmax sample."""

from torch import Generator, Tensor

from dvae.distributions import softmax, working_dtype
from dvae.estimators.base import (
    CodeSample,
    Estimator,
    StraightThroughEstimator,
    as_temperature,
    divide,
)
from dvae.estimators.gumbel_options import GumbelSoftmaxOptions, STGumbelSoftmaxOptions

__all__ = ["GumbelSoftmaxEstimator", "STGumbelSoftmax"]


class GumbelSoftmaxEstimator(Estimator):
    """Gumbel-Softmax: the sample itself is relaxed.

    z = softmax((logits + g) / τ) with standard Gumbel noise g.

    Bias: none for the relaxed objective, which differs from the discrete one; the two agree as
    τ → 0, where the variance diverges. Temperature: of the relaxation, forward and backward.
    Cost: one softmax. Deviations from the paper: none.

    References:
        Jang, Gu, Poole 2017, arXiv 1611.01144; Maddison, Mnih, Teh 2017, arXiv 1611.00712.
    """

    options = GumbelSoftmaxOptions

    def sample(
        self,
        logits: Tensor,
        temperature: float | Tensor,
        *,
        noise: Tensor | None = None,
        generator: Generator | None = None,
    ) -> CodeSample:
        """Draws relaxed codes; see `Estimator.sample`."""
        noise = self._noise(logits, noise, generator)
        working = logits.to(working_dtype(logits.dtype))
        scaled = divide(working + noise, as_temperature(temperature))
        return CodeSample(softmax(scaled).to(logits.dtype), scaled.argmax(-1), logits, scaled)


class STGumbelSoftmax(StraightThroughEstimator):
    """Straight-through Gumbel-Softmax: one-hot forward, relaxed backward.

    z = one_hot(argmax(logits + g)) with the gradient of softmax((logits + g) / τ).

    Bias: a lower τ gives less bias and more variance. Temperature: of the backward pass only.
    With `backward_temperature` (the Decoupled estimator), τ affects only the relaxed samples of
    evaluation. Cost: as Gumbel-Softmax. Deviations: in the Decoupled paper the forward temperature
    scales the logits of the hard draw; here no temperature changes which code is drawn.

    Args:
        backward_temperature: Temperature of the gradient, > 0; None for τ.

    References:
        Jang, Gu, Poole 2017, arXiv 1611.01144, section 2.2; Shah et al. 2024 (Decoupled).
    """

    options = STGumbelSoftmaxOptions

    def __init__(self, backward_temperature: float | None) -> None:
        super().__init__()
        self.backward_temperature = backward_temperature

    def _relax(
        self, logits: Tensor, perturbed: Tensor, hard: Tensor, temperature: float | Tensor
    ) -> Tensor:
        return softmax(divide(perturbed, self.backward_temperature or temperature))
