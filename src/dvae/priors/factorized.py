"""Independent categoricals, fixed or learned."""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Generator, Tensor, nn

from dvae.distributions import gumbel_noise, log_softmax
from dvae.priors.base import Prior

__all__ = ["FactorizedPrior", "LearnedPrior", "UniformPrior"]


class FactorizedPrior(Prior):
    """p(z) = Π_n softmax(logits_n)[z_n], a product of categoricals.

    Attributes:
        logits: Unnormalised log-probabilities, (N, K).
    """

    depends_on_draw = False
    logits: Tensor

    def conditional_logits(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """The same logits for all codes, (N, K)."""
        return self.logits

    def log_prob(self, codes: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-probability of codes in nats: (..., N) → (...)."""
        log_probs = log_softmax(self.logits).expand(*codes.shape, -1)
        return log_probs.gather(-1, codes.unsqueeze(-1)).squeeze(-1).sum(-1)

    def sample(
        self,
        count: int,
        context: Tensor | None = None,
        generator: Generator | None = None,
        *,
        temperature: float = 1.0,
        first: Tensor | None = None,
        track: Callable[[Sequence[int]], Iterable[int]] = iter,
    ) -> Tensor:
        """Draws all latents at once; see `Prior.sample`."""
        noise = gumbel_noise(
            (count, *self.logits.shape),
            dtype=self.logits.dtype,
            device=self.logits.device,
            generator=generator,
        )
        codes = (self.logits / temperature + noise).argmax(-1)
        return codes if first is None else torch.cat([first, codes[:, first.shape[-1] :]], -1)


class UniformPrior(FactorizedPrior):
    """All codes are equally likely: p(z) = K^−N."""

    def __init__(self, grid: Sequence[int], num_categories: int) -> None:
        super().__init__(grid, num_categories)
        zeros = torch.zeros(self.num_latents, num_categories)
        self.register_buffer("logits", zeros, persistent=False)


class LearnedPrior(FactorizedPrior):
    """Independent categoricals with trainable logits, initially uniform."""

    def __init__(self, grid: Sequence[int], num_categories: int) -> None:
        super().__init__(grid, num_categories)
        self.logits = nn.Parameter(torch.zeros(self.num_latents, num_categories))
