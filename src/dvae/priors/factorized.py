"""Priors over codes: independent categoricals, fixed or learned."""

import torch
from torch import Generator, Tensor, nn

from dvae.distributions import gumbel_noise, log_softmax

__all__ = ["PRIORS", "LearnedPrior", "Prior", "UniformPrior"]


class Prior(nn.Module):
    """p(z) = Π_n softmax(logits_n)[z_n], a product of categoricals.

    Attributes:
        logits: Unnormalised log-probabilities, (N, K).
    """

    logits: Tensor

    def log_prob(self, codes: Tensor) -> Tensor:
        """Log-probability of codes in nats: (..., N) → (...)."""
        log_probs = log_softmax(self.logits).expand(*codes.shape, -1)
        return log_probs.gather(-1, codes.unsqueeze(-1)).squeeze(-1).sum(-1)

    def sample(self, num_samples: int, generator: Generator | None = None) -> Tensor:
        """Draws codes, (num_samples, N)."""
        noise = gumbel_noise(
            (num_samples, *self.logits.shape),
            dtype=self.logits.dtype,
            device=self.logits.device,
            generator=generator,
        )
        return (self.logits + noise).argmax(-1)


class UniformPrior(Prior):
    """All codes are equally likely: p(z) = K^−N."""

    def __init__(self, num_latents: int, num_categories: int) -> None:
        super().__init__()
        self.register_buffer("logits", torch.zeros(num_latents, num_categories), persistent=False)


class LearnedPrior(Prior):
    """Independent categoricals with trainable logits; uniform at the start."""

    def __init__(self, num_latents: int, num_categories: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(num_latents, num_categories))


PRIORS: dict[str, type[UniformPrior | LearnedPrior]] = {
    "learned": LearnedPrior,
    "uniform": UniformPrior,
}
"""The names by which configurations know the priors."""
