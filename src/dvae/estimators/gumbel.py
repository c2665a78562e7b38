"""Estimators that differentiate a Gumbel-Softmax sample."""

from torch import Generator, Tensor

from dvae.distributions import one_hot
from dvae.estimators.base import CodeSample, Estimator, as_temperature, perturb, replace_gradient

__all__ = ["GumbelSoftmaxEstimator", "STGumbelSoftmax"]


class GumbelSoftmaxEstimator(Estimator):
    """Gumbel-Softmax: the sample itself is relaxed.

    z = softmax((logits + g) / τ) with standard Gumbel noise g.

    Bias: none for the relaxed objective, which is another than the discrete one; the two meet as
    τ → 0, where the variance diverges. Temperature: that of the relaxation, in both directions.
    Cost: one softmax. Deviations from the paper: none.

    References:
        Jang, Gu, Poole 2017, arXiv 1611.01144; Maddison, Mnih, Teh 2017, arXiv 1611.00712.
    """

    hard = False

    def sample(
        self,
        logits: Tensor,
        temperature: float | Tensor,
        *,
        noise: Tensor | None = None,
        generator: Generator | None = None,
    ) -> CodeSample:
        """Draws relaxed codes; see `Estimator.sample`."""
        perturbed = perturb(logits, noise, generator)
        z = (perturbed / as_temperature(temperature)).softmax(-1)
        return CodeSample(z.to(logits.dtype), perturbed.argmax(-1), logits)


class STGumbelSoftmax(Estimator):
    """Straight-through Gumbel-Softmax: one-hot forward, relaxed backward.

    z = one_hot(argmax(logits + g)) with the gradient of softmax((logits + g) / τ).

    Bias: falls with τ, while the variance rises. Temperature: of the backward pass alone. Cost: as
    Gumbel-Softmax. Deviations from the paper: none.

    References:
        Jang, Gu, Poole 2017, arXiv 1611.01144, section 2.2.
    """

    def sample(
        self,
        logits: Tensor,
        temperature: float | Tensor,
        *,
        noise: Tensor | None = None,
        generator: Generator | None = None,
    ) -> CodeSample:
        """Draws one-hot codes; see `Estimator.sample`."""
        perturbed = perturb(logits, noise, generator)
        codes = perturbed.argmax(-1)
        hard = one_hot(codes, logits.shape[-1], perturbed.dtype)
        relaxed = (perturbed / as_temperature(temperature)).softmax(-1)
        return CodeSample(replace_gradient(hard, relaxed).to(logits.dtype), codes, logits)
