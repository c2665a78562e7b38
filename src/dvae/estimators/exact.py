"""The true gradient, by enumeration."""

from collections.abc import Sequence

from torch import Generator, Tensor

from dvae.distributions import all_codes, one_hot
from dvae.estimators.base import CodeSample, Estimator
from dvae.estimators.exact_options import ExactOptions
from dvae.estimators.score_function import log_prob

__all__ = ["Exact"]


class Exact(Estimator):
    """The exact gradient: every code is tried, and costs are weighed by their probability.

    ∇ Σ_z q(z) f(z). The codes stand on a new leading axis of length K^N; nothing is drawn.

    Bias and variance: none. Temperature: has no effect. Cost: K^N passes through the decoder,
    shared by all images of a batch; refused above 16,384 codes.
    """

    options = ExactOptions

    def noise_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Nothing is drawn: (0,)."""
        return (0,)

    def sample(
        self,
        logits: Tensor,
        temperature: float | Tensor = 1.0,
        *,
        noise: Tensor | None = None,
        generator: Generator | None = None,
    ) -> CodeSample:
        """All codes, as `z` of shape (K^N, 1, …, 1, N, K), which broadcasts over the logits.

        Raises:
            ValueError: If there are more than 16,384.
        """
        num_latents, num_categories = logits.shape[-2:]
        codes = all_codes(num_latents, num_categories, logits.device)
        leading = (len(codes), *(1 for _ in logits.shape[:-2]))
        codes = codes.reshape(*leading, num_latents)
        z = one_hot(codes, num_categories, logits.dtype)
        return CodeSample(z, codes.expand(-1, *logits.shape[:-2], -1), logits)

    def expected(self, cost: Tensor, sample: CodeSample) -> Tensor:
        """Costs (K^N, ...) to the mean over (...) of their expectation."""
        return (log_prob(sample).exp() * cost).sum(0).mean()
