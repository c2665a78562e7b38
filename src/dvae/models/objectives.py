"""Training objectives: the output of a VAE → a scalar loss."""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from dvae.distributions import concrete_log_prob, log_ratio, log_softmax
from dvae.estimators.base import CodeSample
from dvae.estimators.score_function import log_prob
from dvae.models.bounds import importance_weighted_bound
from dvae.models.output import VAEOutput
from dvae.models.vae import VAE

__all__ = ["ELBO", "IWAE", "VIMCO", "Objective"]


class Objective(ABC):
    """A loss in nats per image, to be minimised.

    Args:
        num_samples: m, codes drawn for each image.
        prior_temperature: With None, the rate compares the categorical posterior and prior. With
            a temperature > 0, it compares their Concrete densities at the relaxed sample: the
            posterior's at the current temperature, the prior's at this one. The loss then bounds
            the likelihood of the relaxed model (Maddison et al. 2017).
    """

    def __init__(self, num_samples: int, prior_temperature: float | None) -> None:
        self.num_samples = num_samples
        self.prior_temperature = prior_temperature

    def training_pass(
        self, vae: VAE, images: Tensor, beta: Tensor, prior_weight: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Encodes a batch, draws codes, decodes them and computes the loss; may be compiled.

        Args:
            vae: The model.
            images: (B, C, H, W) in [0, 1].
            beta: Weight on the rate, a scalar.
            prior_weight: Weight of p(z) in the rate of the loss; see `VAEOutput.with_prior_weight`.

        Returns:
            Loss, distortion and rate: scalars in nats per image. Distortion and rate are detached:
            they are for the training curves.
        """
        output = vae(images, self.num_samples)
        mixed = output if prior_weight is None else output.with_prior_weight(prior_weight)
        loss = self(vae, mixed, beta)
        estimator, sample = vae.layer.estimator, output.sample
        distortion = estimator.expected(output.distortion, sample)
        rate = self._expected(vae, output.rate, sample)
        return loss, distortion.detach(), rate.detach()

    @abstractmethod
    def __call__(self, vae: VAE, output: VAEOutput, beta: float | Tensor) -> Tensor:
        """The loss of one pass.

        Args:
            vae: The model.
            output: The model's output with `num_samples` draws.
            beta: Weight on the rate.
        """

    @staticmethod
    def _expected(vae: VAE, rate: Tensor, sample: CodeSample) -> Tensor:
        """The mean of a rate over images and, if it depends on them, over draws; a scalar."""
        if vae.rate_depends_on_draw:
            return vae.layer.estimator.expected(rate, sample)
        return rate.mean()

    def _sampled_rate(self, vae: VAE, output: VAEOutput) -> Tensor:
        """log q(z|x) − log p(z) at the sample, in nats, (..., B)."""
        sample, prior_logits = output.sample, output.prior_logits
        z = sample.z
        if vae.prior.depends_on_draw:
            # Between categorical distributions it sees discrete codes, as in `VAE.forward`.
            z = sample.hard_z if self.prior_temperature is None else sample.z
            if not vae.layer.estimator.score_function:
                prior_logits = vae.prior.conditional_logits(z)
        if self.prior_temperature is None:
            # Exact for one-hot z; for relaxed z, extended linearly.
            ratio = log_ratio(log_softmax(sample.logits), log_softmax(prior_logits))
            return (z * ratio).sum((-2, -1))
        log_z = sample.log_z
        if log_z is None:
            raise ValueError(
                "kl=relaxed: expected an estimator with relaxed samples, found one-hot samples"
            )
        log_q = concrete_log_prob(log_z, sample.logits, vae.layer.temperature)
        log_p = concrete_log_prob(log_z, prior_logits, self.prior_temperature)
        return (log_q - log_p).sum(-1)


class ELBO(Objective):
    """distortion + β · rate, the mean over m draws.

    The categorical rate is analytic and differentiated directly. If it depends on the draw, as with
    an autoregressive prior or a posterior of several groups, it is instead part of the cost that
    the estimator differentiates.

    Args:
        num_samples: See `Objective`.
        prior_temperature: See `Objective`.
        free_bits: λ in nats: the rate of a level counts as λ, without a gradient, while its mean
            over the batch is smaller (Kingma et al. 2016, arXiv 1606.04934).
    """

    def __init__(
        self, num_samples: int, prior_temperature: float | None, free_bits: float = 0.0
    ) -> None:
        super().__init__(num_samples, prior_temperature)
        self.free_bits = free_bits

    def __call__(self, vae: VAE, output: VAEOutput, beta: float | Tensor) -> Tensor:
        """The loss of one pass; see `Objective`."""
        estimator, sample = vae.layer.estimator, output.sample
        if self.prior_temperature is not None:
            distortion = estimator.surrogate(output.distortion, sample)
            return distortion + beta * self._sampled_rate(vae, output).mean()
        rate = self._rate(vae, output)
        if vae.rate_depends_on_draw:
            return estimator.surrogate(output.distortion + beta * rate, sample)
        return estimator.surrogate(output.distortion, sample) + beta * rate.mean()

    def _rate(self, vae: VAE, output: VAEOutput) -> Tensor:
        """The rate of each image or draw, at least `free_bits` in the mean of each level."""
        if not self.free_bits:
            return output.rate
        total = torch.zeros_like(output.kl[..., 0])
        for place in vae.prior.levels:
            rate = output.kl[..., place].sum(-1)
            mean = self._expected(vae, rate.detach(), output.sample).detach()
            total = total + torch.where(mean > self.free_bits, rate, self.free_bits)
        return total


class IWAE(Objective):
    """−log (1/m) Σ_s p(x|z_s) (p(z_s) / q(z_s|x))^β, differentiated through the draws.

    References:
        Burda, Grosse, Salakhutdinov 2016, arXiv 1509.00519; Maddison, Mnih, Teh 2017.
    """

    def __call__(self, vae: VAE, output: VAEOutput, beta: float | Tensor) -> Tensor:
        """The loss of one pass; see `Objective`."""
        log_weights = -output.distortion - beta * self._sampled_rate(vae, output)
        return -importance_weighted_bound(log_weights).mean()


class VIMCO(Objective):
    """The bound of `IWAE` with a score-function gradient, and a baseline for each draw.

    The learning signal of draw s is the bound minus the one in which log w_s is replaced by the
    mean of the other log weights.

    References:
        Mnih, Rezende 2016, arXiv 1602.06725.
    """

    def __call__(self, vae: VAE, output: VAEOutput, beta: float | Tensor) -> Tensor:
        """The loss of one pass; see `Objective`."""
        log_q = log_prob(output.sample)
        log_weights = -output.distortion - beta * self._sampled_rate(vae, output)
        bound = importance_weighted_bound(log_weights)
        signal = bound - self._without_each(log_weights)
        score = (signal.detach() * log_q).sum(0).mean()
        # The difference is 0, but has a gradient.
        return -bound.mean() - (score - score.detach())

    @staticmethod
    def _without_each(log_weights: Tensor) -> Tensor:
        """The bound with each log weight in turn replaced by the mean of the others, (m, B)."""
        m = len(log_weights)
        others = (log_weights.sum(0) - log_weights) / (m - 1)
        swapped = log_weights.expand(m, *log_weights.shape).clone()
        swapped.diagonal(dim1=0, dim2=1).copy_(others.movedim(0, -1))
        return torch.logsumexp(swapped, 1) - math.log(m)
