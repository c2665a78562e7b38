"""Training and evaluation of a VAE with Lightning."""

from collections.abc import Callable, Mapping
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor

from dvae.bounds import Enumeration, exact_log_likelihood, sampled_bound
from dvae.data.loader import Batch
from dvae.distributions import MAX_ENUMERATION, concrete_sample, gumbel_from_uniform
from dvae.metrics import CodeUsage, MutualInformation
from dvae.models import VAE
from dvae.objectives import ELBO, Objective
from dvae.randomness import ImageStreams
from dvae.schedules import Constant, Schedule

__all__ = ["VAEModule"]


class VAEModule(pl.LightningModule):
    """Minimises an objective; reports bounds of the discrete model.

    Metrics, in nats per image: `elbo`, `rate` and `distortion` with one-hot codes drawn from
    q(z|x), `relaxed_elbo` with Concrete samples at the current temperature (a surrogate, not a
    bound), and in the test `nll_iw{m}` and, where the codes can be enumerated, `nll_exact`.
    All draws of an image depend on its index alone, so that every evaluation repeats.

    Args:
        vae: The model.
        objective: What is minimised; the negative ELBO by default.
        temperature: τ at each global step; None for an estimator that has none.
        beta: β at each global step.
        optimizers: From the model to what Lightning's `configure_optimizers` returns.
        config: Plain values from which the whole can be built again; kept in checkpoints.
        log_every: Steps between two entries of the training curves.
        test_samples: m, samples of the importance-weighted bound in the test; 0 leaves it out.
        eval_seed: Seed of the draws in evaluation.
    """

    def __init__(
        self,
        vae: VAE,
        *,
        objective: Objective | None = None,
        temperature: Schedule | None = None,
        beta: Schedule | None = None,
        optimizers: Callable[[VAE], OptimizerLRScheduler] | None = None,
        config: Mapping[str, Any] | None = None,
        log_every: int = 50,
        test_samples: int = 0,
        eval_seed: int = 0,
    ) -> None:
        super().__init__()
        self.vae = vae
        self.objective = objective or ELBO()
        self.temperature = temperature
        self.beta = beta or Constant(1.0)
        self.config = dict(config or {})
        self.log_every = log_every
        self.test_samples = test_samples
        self.eval_seed = eval_seed
        self.test_split = "test"
        self.usage = CodeUsage(vae.num_latents, vae.num_categories)
        self.information = MutualInformation()
        self._optimizers_of = optimizers
        self._enumeration: Enumeration | None = None

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimizer and its learning rate schedule."""
        if self._optimizers_of is None:
            return None
        return self._optimizers_of(self.vae)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Sets the temperature, a pure function of the global step."""
        if self.temperature is not None:
            self.vae.layer.set_temperature(self.temperature(self.global_step))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The objective, and its parts for the training curves."""
        output = self.vae(batch.images, self.objective.num_samples)
        loss = self.objective(self.vae, output, self.beta(self.global_step))
        if (self.global_step + 1) % self.log_every == 0:
            estimator, rate = self.vae.layer.estimator, output.rate.detach().mean()
            distortion = estimator.expected(output.distortion, output.sample).detach()
            elbo = "elbo" if estimator.hard else "relaxed_elbo"
            self.log_dict({f"train/{elbo}": -(distortion + rate)}, prog_bar=True)
            if self.temperature is not None:
                self.log_dict({"train/temperature": self.vae.layer.temperature}, prog_bar=True)
            [optimizer] = self.trainer.optimizers
            self.log_dict(
                {
                    "train/loss": loss.detach(),
                    "train/distortion": distortion,
                    "train/rate": rate,
                    "train/learning_rate": optimizer.param_groups[0]["lr"],
                }
            )
        return loss

    def on_validation_epoch_start(self) -> None:
        """Forgets the counts of the last evaluation."""
        self.usage.reset()
        self.information.reset()

    def on_test_epoch_start(self) -> None:
        """Forgets the counts of the last evaluation, and decodes all codes where they are few."""
        self.on_validation_epoch_start()
        few = self.vae.num_categories**self.vae.num_latents <= MAX_ENUMERATION
        self._enumeration = Enumeration.of(self.vae, self.device) if few else None

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Bounds of the discrete and the relaxed model."""
        self._evaluate(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """As in validation, and the likelihood."""
        logits, codes, streams = self._evaluate(batch, self.test_split)
        self.information.update(logits, codes)
        likelihoods = {}
        if self.test_samples:
            bound = sampled_bound(self.vae, batch.images, logits, streams, self.test_samples)
            likelihoods[f"nll_iw{self.test_samples}"] = -bound
        if self._enumeration is not None:
            likelihoods["nll_exact"] = -exact_log_likelihood(self._enumeration, batch.images)
        self._log_means(likelihoods, self.test_split)

    def on_validation_epoch_end(self) -> None:
        """Statistics of the codes over the split."""
        self.log_dict({f"val/{name}": value for name, value in self.usage.compute().items()})

    def on_test_epoch_end(self) -> None:
        """Statistics of the codes over the split, and the information between images and codes."""
        statistics = self.usage.compute() | {"mutual_information": self.information.compute()}
        self.log_dict({f"{self.test_split}/{name}": value for name, value in statistics.items()})

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the configuration, as plain values."""
        checkpoint["config"] = self.config

    def _evaluate(self, batch: Batch, split: str) -> tuple[Tensor, Tensor, ImageStreams]:
        vae = self.vae
        logits = vae.encode(batch.images)
        streams = ImageStreams(batch.indices, self.eval_seed)
        noise = gumbel_from_uniform(streams.uniform(1, *logits.shape[1:])[0])
        codes = (logits + noise).argmax(-1)
        rate = vae.rate(logits)
        distortion = -vae.log_likelihood(batch.images, vae.decode_codes(codes))
        terms = {"elbo": -(distortion + rate), "rate": rate, "distortion": distortion}
        if vae.layer.estimator.uses_temperature:
            relaxed = concrete_sample(logits, vae.layer.temperature, noise).exp()
            likelihood = vae.log_likelihood(batch.images, vae.decode(relaxed))
            terms["relaxed_elbo"] = likelihood - rate
        self.usage.update(logits, codes)
        self._log_means(terms, split)
        return logits, codes, streams

    def _log_means(self, values: Mapping[str, Tensor], split: str) -> None:
        """Logs means over the images of the split: each batch counts by its size."""
        for name, value in values.items():
            self.log(
                f"{split}/{name}",
                value.double().mean(),
                on_epoch=True,
                batch_size=len(value),
                sync_dist=True,
                prog_bar=split == "val" and name == "elbo",
            )
