"""Score-function estimators: the gradient passes through log q of the draw, not through z."""

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from dvae.distributions import draw_one_hot, gumbel_noise, log_softmax, working_dtype
from dvae.estimators.base import CodeSample, Estimator
from dvae.estimators.score_function_options import ReinforceOptions, RLOOOptions

__all__ = [
    "RLOO",
    "Reinforce",
    "ScoreFunction",
    "latent_axes",
    "log_prob",
    "log_probs",
    "scored_rates",
]


def log_probs(sample: CodeSample) -> Tensor:
    """log q of each drawn code, of the shape of the codes, in nats; differentiable."""
    logits = sample.logits.to(working_dtype(sample.logits.dtype))
    if sample.dim != -1:
        logits = logits.movedim(sample.dim, -1)
    log_q = log_softmax(logits).expand(*sample.codes.shape, -1)
    return log_q.gather(-1, sample.codes.unsqueeze(-1)).squeeze(-1)


def log_prob(sample: CodeSample) -> Tensor:
    """log q of the drawn codes, summed over latents, (...), in nats; differentiable."""
    return log_probs(sample).sum(latent_axes(sample))


def latent_axes(sample: CodeSample) -> tuple[int, ...]:
    """The axes of the latents in the codes of a sample."""
    return tuple(range(min(sample.dim + 1, -1), 0))


class ScoreFunction(Estimator):
    """Draws one-hot codes that carry no gradient."""

    def sample(
        self,
        logits: Tensor,
        temperature: float | Tensor = 1.0,
        *,
        noise: Tensor | None = None,
        generator: Generator | None = None,
    ) -> CodeSample:
        """Draws one-hot codes; see `Estimator.sample`."""
        with torch.no_grad():
            perturbed = logits.to(working_dtype(logits.dtype)) + self._noise(
                logits, noise, generator
            )
            codes, hard = draw_one_hot(perturbed, logits.dtype)
        return CodeSample(hard, codes, logits)

    @staticmethod
    def _weigh(cost: Tensor, score: Tensor) -> Tensor:
        """The mean cost, with the gradient of mean(cost + score); the scores are (...), as cost."""
        score = score.mean()
        # The difference is 0, but has a gradient.
        return cost.mean() + (score - score.detach())


class Reinforce(ScoreFunction):
    """REINFORCE with a running baseline.

    ∇ = (f(z) − b) ∇ log q(z), with b the exponential moving average of past costs.

    Bias: none; the baseline depends on earlier calls only. Temperature: has no effect. Cost: one
    forward pass. Deviations from the paper: the baseline is neither learned nor a function of
    the input.

    Args:
        decay: Weight of the past in the baseline, in [0, 1); None for no baseline.

    References:
        Williams 1992, "Simple statistical gradient-following algorithms for connectionist
        reinforcement learning", Machine Learning 8.
    """

    options = ReinforceOptions
    average: Tensor
    weight: Tensor

    def __init__(self, decay: float | None) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("average", torch.zeros(()))
        self.register_buffer("weight", torch.zeros(()))

    def surrogate(self, cost: Tensor, sample: CodeSample) -> Tensor:
        """Turns costs of draws (...) into a scalar; updates the baseline in training mode."""
        # The average starts at 0; dividing it by its weight corrects for that.
        baseline = self.average / self.weight.clamp_min(torch.finfo(self.weight.dtype).tiny)
        loss = self._weigh(cost, (cost - baseline).detach() * log_prob(sample))
        if self.training and self.decay is not None:
            with torch.no_grad():
                self.average.lerp_(cost.mean().to(self.average.dtype), 1 - self.decay)
                self.weight.lerp_(torch.ones_like(self.weight), 1 - self.decay)
        return loss


class RLOO(ScoreFunction):
    """REINFORCE with a leave-one-out baseline over S draws.

    ∇ = (1/S) Σ_s (f(z_s) − mean of the other f) ∇ log q(z_s).

    Bias: none. Temperature: has no effect. Cost: S passes through the decoder. The draws are on a
    new leading axis. Deviations from the paper: draws with replacement.

    Args:
        num_samples: S, at least 2.

    References:
        Kool, van Hoof, Welling 2019, "Buy 4 REINFORCE samples, get a baseline for free!".
    """

    options = RLOOOptions

    def __init__(self, num_samples: int) -> None:
        super().__init__()
        self.num_samples = num_samples

    def noise_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """(S, ..., N, K)."""
        return (self.num_samples, *shape)

    def sample_next(self, logits: Tensor, temperature: float | Tensor) -> CodeSample:
        """Draws one code for each of the S; see `Estimator.sample_next`."""
        dtype = working_dtype(logits.dtype)
        return self.sample(
            logits, noise=gumbel_noise(logits.shape, dtype=dtype, device=logits.device)
        )

    def surrogate(self, cost: Tensor, sample: CodeSample) -> Tensor:
        """Turns costs (S, ...) into a scalar."""
        others = (cost.sum(0) - cost) / (self.num_samples - 1)
        return self._weigh(cost, (cost - others).detach() * log_prob(sample))


def scored_rates(kl: Tensor, sample: CodeSample) -> Tensor:
    """Rates with the gradient of what each code changes in those of the latents after it.

    Σ_n (R_n − mean of the other draws' R_n) ∇ log q(z_n), where R_n is the rate of the latents
    after n. Unlike a gradient through z it has no bias, and the prior needs none for its input.

    Args:
        kl: The rate of each latent, (m, B, N), from codes without gradient; m ≥ 2.
        sample: The draws.
    """
    later = kl.detach().sum(-1, keepdim=True) - kl.detach().cumsum(-1)
    advantage = (later - later.mean(0)) * (len(kl) / (len(kl) - 1))
    score = advantage * log_probs(sample)
    # The difference is 0, but has a gradient.
    return kl + (score - score.detach())
