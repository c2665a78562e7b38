"""What a pass through the model returns."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from torch import Tensor

from dvae.distributions import categorical_entropy, working_dtype
from dvae.estimators.base import CodeSample

__all__ = ["VAEOutput"]


@dataclass(frozen=True)
class VAEOutput:
    """One pass through the model, in nats per image.

    Attributes:
        sample: The codes drawn from q(z|x), with their logits (..., B, N, K).
        distortion: −log p(x|z) of each draw, (..., B).
        kl: The rate of each latent: (B, N), or (..., B, N) if it depends on the draw.
        prior_logits: Logits of the prior given the hard codes, (..., B, N, K) or a shape that
            broadcasts to it.
    """

    sample: CodeSample
    distortion: Tensor
    kl: Tensor
    prior_logits: Tensor

    @property
    def rate(self) -> Tensor:
        """KL(q(z|x) ‖ p(z)), summed over latents: (B,), or (..., B) if it depends on the draw."""
        return self.kl.sum(-1)

    def with_prior_weight(self, weight: Tensor) -> VAEOutput:
        """The same with a rate that mixes p(z) with the uniform prior u.

        w · KL(q ‖ p) + (1 − w) · KL(q ‖ u), where KL(q_n ‖ u) = ln K − H(q_n).

        Args:
            weight: w, a scalar in [0, 1].
        """
        logits = self.sample.logits
        working = logits.to(working_dtype(logits.dtype))
        uniform = math.log(logits.shape[-1]) - categorical_entropy(working)
        return replace(self, kl=weight * self.kl + (1 - weight) * uniform)
