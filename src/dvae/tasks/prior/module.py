"""Fitting a prior to the codes of a trained VAE with Lightning."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from dvae.data.loader import Batch
from dvae.distributions import gumbel_noise, one_hot
from dvae.models.vae import VAE
from dvae.tasks.vae.module import VAEModule
from dvae.training.settings import Evaluation, Training

__all__ = ["PriorModule"]

_WITHOUT_CLASS = 0.5
"""Share of the training images whose class is left out, so that p(z) is learned beside p(z|y)."""


class PriorModule(VAEModule):
    """Minimises the rate Σ_n KL(q(z_n|x) ‖ p(z_n|z_<n)) over the prior alone, with z drawn from q.

    Encoder and decoder are frozen, and codes are drawn anew in each step. Checkpoints are those of
    a VAE with this prior.

    Metrics: those of a VAE, and, for comparison, the rate of the same posterior with two other
    priors: `uniform_rate`, and `factorized_rate` with the best product of categoricals for the
    split, which is that of its own marginals. Training curves also show the rate of a latent,
    `nats_per_code`.

    Args:
        vae: A trained model with a new prior.
        labels: The classes of the training images, if the prior is to depend on them, (M,), int64.
        training: See `TaskModule`.
        evaluation: See `TaskModule`.
        config: See `TaskModule`; that of a VAE.
    """

    shown: ClassVar[Sequence[str]] = ("rate",)
    labels: Tensor | None

    def __init__(
        self,
        vae: VAE,
        labels: Tensor | None = None,
        *,
        training: Training | None = None,
        evaluation: Evaluation | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(vae, training=training, evaluation=evaluation, config=config)
        self.training_pass = rate_of_draw
        self.register_buffer("labels", labels, persistent=False)
        vae.requires_grad_(False)
        vae.prior.requires_grad_(True)

    def train(self, mode: bool = True) -> Self:
        """Sets the mode of the prior; the rest of the model stays in evaluation mode."""
        super().train(mode)
        self.vae.eval()
        self.vae.prior.train(mode)
        return self

    def training_loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Computes the rate of a batch."""
        (loss,) = self.training_pass(self.vae, batch.images, self._context(batch.indices))
        rate = loss.detach()
        return loss, {"rate": rate, "nats_per_code": rate / self.vae.num_latents}

    def _context(self, indices: Tensor) -> Tensor | None:
        """One-hot classes, (B, C), some of which are left out; None without labels."""
        if self.labels is None:
            return None
        classes = self.vae.prior.context_size
        known = torch.rand(len(indices), 1, device=indices.device) >= _WITHOUT_CLASS
        return one_hot(self.labels[indices], classes) * known

    def _log_usage(self, split: str) -> None:
        super()._log_usage(split)
        vae, usage = self.vae, self.usage
        entropy = (usage.entropy / usage.total).sum()
        values = {
            "uniform_rate": vae.num_latents * math.log(vae.num_categories) - entropy,
            "factorized_rate": usage.information().sum(),
        }
        self.log_dict({f"{split}/{name}": value for name, value in values.items()})


def rate_of_draw(vae: VAE, images: Tensor, context: Tensor | None = None) -> tuple[Tensor]:
    """The rate of a draw from q(z|x), with a gradient for the prior alone.

    Args:
        vae: The model.
        images: (B, C, H, W) in [0, 1].
        context: What the prior is given, (B, C).

    Returns:
        A scalar in nats per image.
    """
    with torch.no_grad():
        shape = (len(images), vae.num_latents, vae.num_categories)
        noise = gumbel_noise(shape, device=images.device)
        logits, codes = vae.draw_codes(vae.encode(images), noise)
        z = one_hot(codes, vae.num_categories, logits.dtype)
    return (vae.rate(logits, z, context).mean(),)
