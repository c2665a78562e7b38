"""Estimators Rao-Blackwellised over the Gumbel noise, given the draw."""

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from dvae.distributions import exponential_noise, one_hot, working_dtype
from dvae.estimators.base import CodeSample, Estimator, as_temperature, replace_gradient

__all__ = ["GumbelRao", "ReinMaxRao", "conditional_relaxation"]


def conditional_relaxation(
    p: Tensor, hard: Tensor, temperature: float | Tensor, exponential: Tensor
) -> Tensor:
    """Draws softmax((logits + g) / τ) given that the arg max is the drawn category i.

    Given i, logits_k + g_k is −log(E_i / Z) for k = i and −log(E_k / e^logits_k + E_i / Z)
    otherwise, with standard exponential E and Z = Σ e^logits. Up to a common factor the relaxed
    sample is therefore w^(−1/τ) with w_i = 1 and w_k = 1 + E_k / (E_i p_k): one power for every
    entry, and no logarithm of the logits.

    Args:
        p: softmax(logits), (..., K).
        hard: The draw, one-hot, (..., K).
        temperature: τ > 0.
        exponential: Standard exponential noise, > 0, (S, ..., K).

    Returns:
        Relaxed samples, (S, ..., K).

    References:
        Paulus, Maddison, Krause 2021, arXiv 2010.04838; Maddison, Tarlow 2017 for the conditionals.
    """
    own = (exponential * hard).sum(-1, keepdim=True)
    # The drawn category gets w = 1; a category of probability 0 gets w = ∞ and weight 0.
    w = 1 + exponential / own * ((1 - hard) / p)
    power = w.pow(-1 / temperature)
    return power / power.sum(-1, keepdim=True)


class GumbelRao(Estimator):
    """Gumbel-Rao: straight-through Gumbel-Softmax, averaged over the noise given the draw.

    z = D with the Jacobian (1/τ) mean_s (diag(y_s) − y_s y_sᵀ), where the y_s are relaxed samples
    conditioned on the draw D.

    Bias: that of straight-through Gumbel-Softmax; the variance is smaller. Temperature: of the
    backward pass. Cost: S relaxed samples of noise and one K × K matrix a latent; neither the
    decoder nor the graph of gradients grows with S. Deviations from the paper: none.

    Args:
        num_samples: S, relaxed samples for each draw, at least 1.

    Raises:
        ValueError: If there is not at least one.

    References:
        Paulus, Maddison, Krause 2021, arXiv 2010.04838.
    """

    def __init__(self, num_samples: int = 10) -> None:
        super().__init__()
        if num_samples < 1:
            raise ValueError(f"num_samples: expected at least 1, found {num_samples}")
        self.num_samples = num_samples

    def noise_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """One set of noise for the draw and S for the samples given it: (1 + S, ..., N, K)."""
        return (1 + self.num_samples, *shape)

    def sample(
        self,
        logits: Tensor,
        temperature: float | Tensor,
        *,
        noise: Tensor | None = None,
        generator: Generator | None = None,
    ) -> CodeSample:
        """Draws one-hot codes; see `Estimator.sample`."""
        temperature = as_temperature(temperature)
        working = logits.to(working_dtype(logits.dtype))
        with torch.no_grad():
            if noise is None:
                exponential = exponential_noise(
                    self.noise_shape(logits.shape),
                    dtype=working.dtype,
                    device=logits.device,
                    generator=generator,
                )
            else:
                exponential = (-noise).exp()
            codes = (working - exponential[0].log()).argmax(-1)
            hard = one_hot(codes, logits.shape[-1], working.dtype)
            jacobian = self._jacobian(working.softmax(-1), hard, temperature, exponential[1:])
        surrogate = (jacobian @ working.unsqueeze(-1)).squeeze(-1)
        z = replace_gradient(hard, surrogate)
        return CodeSample(z.to(logits.dtype), codes, logits)

    def _jacobian(
        self, p: Tensor, hard: Tensor, temperature: float | Tensor, exponential: Tensor
    ) -> Tensor:
        """∂z/∂logits as matrices (..., K, K), given the draw.

        Args:
            p: softmax(logits), (..., K).
            hard: The one-hot draw, (..., K).
            temperature: τ.
            exponential: Standard exponential noise, (S, ..., K).
        """
        y = conditional_relaxation(p, hard, temperature, exponential)
        outer = torch.einsum("s...i,s...j->...ij", y, y) / len(y)
        return (torch.diag_embed(y.mean(0)) - outer) / temperature


class ReinMaxRao(GumbelRao):
    """ReinMax-Rao: ReinMax with a Gumbel-Rao Jacobian in its midpoint.

    ∂z/∂logits = 2 J_GR((D + p) / 2) − (diag(p) − p pᵀ) / 2, where J_GR(q) is the Jacobian of
    Gumbel-Rao for the probabilities q, given the draw D.

    Bias: exact at no order; in the paper's experiments near ReinMax's, with less variance.
    Temperature: of the relaxed samples. Cost: as Gumbel-Rao. Deviations from the paper: the second
    term is taken at p, as in ReinMax, and not at the midpoint that stands in its equation.

    Args:
        num_samples: S, relaxed samples for each draw, at least 1.

    Raises:
        ValueError: If there is not at least one.

    References:
        Wang, Bui 2026, arXiv 2603.08257, equation 17.
    """

    def _jacobian(
        self, p: Tensor, hard: Tensor, temperature: float | Tensor, exponential: Tensor
    ) -> Tensor:
        midpoint = super()._jacobian((hard + p) / 2, hard, temperature, exponential)
        own = torch.diag_embed(p) - p.unsqueeze(-1) * p.unsqueeze(-2)
        return 2 * midpoint - own / 2
