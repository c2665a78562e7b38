"""Training objectives: one pass through a VAE → the scalar whose gradient is followed."""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from dvae.distributions import concrete_log_prob, log_softmax
from dvae.estimators.score_function import log_prob
from dvae.models.bounds import importance_weighted_bound
from dvae.models.vae import VAE, VAEOutput

__all__ = ["ELBO", "IWAE", "KL", "OBJECTIVES", "VIMCO", "Objective"]

KL = ("discrete", "relaxed")
"""Which densities of posterior and prior are compared: categorical, or Concrete in log space."""


class Objective(ABC):
    """A loss in nats per image, to be minimised.

    Args:
        num_samples: m, codes drawn for each image.
        kl: "discrete": the categorical posterior and prior. "relaxed": the Concrete densities of
            the relaxed sample, of the posterior at the current temperature and of the prior at its
            own; then the loss bounds the likelihood of the relaxed model (Maddison et al. 2017).
        prior_temperature: Temperature of the prior, > 0, with `kl="relaxed"` only.

    Raises:
        ValueError: If an option is out of range, or two do not fit.
    """

    least_samples = 1

    def __init__(
        self, num_samples: int = 1, kl: str = "discrete", prior_temperature: float | None = None
    ) -> None:
        if num_samples < self.least_samples:
            raise ValueError(
                f"num_samples: expected at least {self.least_samples}, found {num_samples}"
            )
        if kl not in KL:
            raise ValueError(f"kl: expected one of {', '.join(KL)}, found {kl!r}")
        if (kl == "relaxed") is (prior_temperature is None):
            raise ValueError(
                f"prior_temperature: expected {'a number' if kl == 'relaxed' else 'none'} with "
                f"kl={kl}, found {prior_temperature}"
            )
        self.num_samples = num_samples
        self.prior_temperature = prior_temperature

    @abstractmethod
    def __call__(self, vae: VAE, output: VAEOutput, beta: float | Tensor) -> Tensor:
        """The loss of one pass.

        Args:
            vae: The model.
            output: What it returned for `num_samples`.
            beta: Weight on the rate.
        """

    def _sampled_rate(self, vae: VAE, output: VAEOutput) -> Tensor:
        """log q(z|x) − log p(z) at the sample, in nats, (..., B)."""
        sample, prior_logits = output.sample, vae.prior.logits
        if self.prior_temperature is None:
            # Linear in z: exact for one-hot codes, and an extension for relaxed ones.
            ratio = log_softmax(sample.logits) - log_softmax(prior_logits)
            return (sample.z * ratio).sum((-2, -1))
        if sample.log_z is None:
            raise ValueError("kl=relaxed: expected an estimator with relaxed samples, found hard")
        log_q = concrete_log_prob(sample.log_z, sample.logits, vae.layer.temperature)
        log_p = concrete_log_prob(sample.log_z, prior_logits, self.prior_temperature)
        return (log_q - log_p).sum(-1)


class ELBO(Objective):
    """distortion + β · rate, the mean over m draws.

    With `kl="discrete"` the rate is analytic and stays outside of the estimator.
    """

    def __call__(self, vae: VAE, output: VAEOutput, beta: float | Tensor) -> Tensor:
        """The loss of one pass; see `Objective`."""
        distortion = vae.layer.estimator.surrogate(output.distortion, output.sample)
        if self.prior_temperature is None:
            return distortion + beta * output.rate.mean()
        return distortion + beta * self._sampled_rate(vae, output).mean()


class IWAE(Objective):
    """−log (1/m) Σ_s p(x|z_s) (p(z_s) / q(z_s|x))^β, differentiated through the draws.

    References:
        Burda, Grosse, Salakhutdinov 2016, arXiv 1509.00519; Maddison, Mnih, Teh 2017.
    """

    least_samples = 2

    def __call__(self, vae: VAE, output: VAEOutput, beta: float | Tensor) -> Tensor:
        """The loss of one pass; see `Objective`."""
        log_weights = -output.distortion - beta * self._sampled_rate(vae, output)
        return -importance_weighted_bound(log_weights).mean()


class VIMCO(Objective):
    """The same bound with a score-function gradient, and a baseline for each draw.

    The learning signal of draw s is the bound minus the one in which log w_s is replaced by the
    mean of the other log weights.

    References:
        Mnih, Rezende 2016, arXiv 1602.06725.
    """

    least_samples = 2

    def __call__(self, vae: VAE, output: VAEOutput, beta: float | Tensor) -> Tensor:
        """The loss of one pass; see `Objective`."""
        log_q = log_prob(output.sample)
        log_weights = -output.distortion - beta * self._sampled_rate(vae, output)
        bound = importance_weighted_bound(log_weights)
        signal = bound - self._without_each(log_weights)
        score = (signal.detach() * log_q).sum(0).mean()
        # Adds a gradient and no value.
        return -bound.mean() - (score - score.detach())

    @staticmethod
    def _without_each(log_weights: Tensor) -> Tensor:
        """The bound with each log weight in turn replaced by the mean of the others, (m, B)."""
        m = len(log_weights)
        others = (log_weights.sum(0) - log_weights) / (m - 1)
        swapped = log_weights.expand(m, *log_weights.shape).clone()
        swapped.diagonal(dim1=0, dim2=1).copy_(others.movedim(0, -1))
        return torch.logsumexp(swapped, 1) - math.log(m)


OBJECTIVES: dict[str, type[Objective]] = {"elbo": ELBO, "iwae": IWAE, "vimco": VIMCO}
"""The names by which configurations know the objectives."""
