"""The exact gradient, by enumeration."""

from collections.abc import Sequence

from torch import Generator, Tensor

from dvae.distributions import all_codes, one_hot
from dvae.estimators.base import CodeSample, Estimator
from dvae.estimators.exact_options import ExactOptions
from dvae.estimators.score_function import log_prob

__all__ = ["Exact"]


class Exact(Estimator):
    """The exact gradient: enumerates every code and weights its cost by its probability.

    ∇ Σ_z q(z) f(z). The codes are on a new leading axis of length K^N; nothing is drawn.

    Bias and variance: none. Temperature: has no effect. Cost: K^N passes through the decoder,
    shared by all images of a batch; at most 16,384 codes.
    """

    options = ExactOptions

    def noise_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """(0,): no noise is drawn."""
        return (0,)

    def sample(
        self,
        logits: Tensor,
        temperature: float | Tensor = 1.0,
        *,
        noise: Tensor | None = None,
        generator: Generator | None = None,
    ) -> CodeSample:
        """Returns all codes; `z` has the shape (K^N, 1, …, 1, N, K) and broadcasts with the logits.

        Raises:
            ValueError: If there are more than 16,384 codes.
        """
        num_latents, num_categories = logits.shape[-2:]
        codes = all_codes(num_latents, num_categories, logits.device)
        leading = (len(codes), *(1 for _ in logits.shape[:-2]))
        codes = codes.reshape(*leading, num_latents)
        z = one_hot(codes, num_categories, logits.dtype)
        return CodeSample(z, codes.expand(-1, *logits.shape[:-2], -1), logits)

    def expected(self, cost: Tensor, sample: CodeSample) -> Tensor:
        """The expectation of costs (K^N, ...) over all codes, averaged over (...)."""
        return (log_prob(sample).exp() * cost).sum(0).mean()
