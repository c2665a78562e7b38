"""Training and evaluation of a VAE with Lightning."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.optim import Optimizer

from dvae.bounds import MAX_DECODES, Enumeration, exact_log_likelihood, sampled_bound
from dvae.data.loader import Batch
from dvae.distributions import MAX_ENUMERATION, concrete_sample, gumbel_from_uniform
from dvae.metrics import CodeUsage, MutualInformation
from dvae.models import VAE
from dvae.objectives import ELBO, Objective
from dvae.randomness import ImageStreams, keyed_seed
from dvae.schedules import Constant, Schedule

__all__ = ["VAEModule", "losses"]


def losses(
    vae: VAE, objective: Objective, images: Tensor, beta: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """One training pass: the loss, and for the training curves distortion and rate.

    Args:
        vae: The model.
        objective: What is minimised.
        images: (B, *image_shape) in [0, 1].
        beta: Weight on the rate, a scalar.

    Returns:
        Three scalars in nats per image; the last two are detached.
    """
    output = vae(images, objective.num_samples)
    loss = objective(vae, output, beta)
    distortion = vae.layer.estimator.expected(output.distortion, output.sample)
    return loss, distortion.detach(), output.rate.mean().detach()


class VAEModule(pl.LightningModule):
    """Minimises an objective; reports bounds of the discrete model.

    Metrics, in nats per image: `elbo`, `rate` and `distortion` with one-hot codes drawn from
    q(z|x), `relaxed_elbo` with Concrete samples at the current temperature (a surrogate, not a
    bound), and in the test `nll_iw{m}` and, where the codes can be enumerated, `nll_exact`.
    All draws of an image depend on its index alone, so that every evaluation repeats. Temperature,
    β, learning rate and the noise of a training step are pure functions of the global step.

    A call of `training_step` takes several optimizer steps: what Lightning does around a call takes
    as long as a step of a small model on a GPU.

    Args:
        vae: The model.
        objective: What is minimised; the negative ELBO by default.
        temperature: τ at each global step; None for an estimator that has none.
        beta: β at each global step.
        learning_rate: The learning rate at each step.
        optimizer: Builds the optimizer of the model; needed for training only.
        gradient_clip: Largest norm of the gradient; 0 clips nothing.
        seed: Seed of the noise in training.
        config: Plain values from which the whole can be built again; kept in checkpoints.
        log_every: Steps between two entries of the training curves.
        test_samples: m, samples of the importance-weighted bound in the test; 0 leaves it out.
        eval_seed: Seed of the draws in evaluation.
    """

    beta_now: Tensor

    def __init__(
        self,
        vae: VAE,
        *,
        objective: Objective | None = None,
        temperature: Schedule | None = None,
        beta: Schedule | None = None,
        learning_rate: Schedule | None = None,
        optimizer: Callable[[VAE], Optimizer] | None = None,
        gradient_clip: float = 0.0,
        seed: int = 0,
        config: Mapping[str, Any] | None = None,
        log_every: int = 50,
        test_samples: int = 0,
        eval_seed: int = 0,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.vae = vae
        self.objective = objective or ELBO()
        self.temperature = temperature
        self.beta = beta or Constant(1.0)
        self.learning_rate = learning_rate or Constant(1e-3)
        self.gradient_clip = gradient_clip
        self.seed = seed
        self.curves: dict[str, float] = {}
        self.config = dict(config or {})
        self.log_every = log_every
        self.test_samples = test_samples
        self.eval_seed = eval_seed
        self.test_split = "test"
        self.max_decodes = MAX_DECODES
        self.usage = CodeUsage(vae.num_latents, vae.num_categories)
        self.information = MutualInformation()
        # Tensors of the device, so that a compiled pass reads them and is not compiled anew.
        self.register_buffer("beta_now", torch.ones(()), persistent=False)
        self._optimizer_of = optimizer
        self._losses = losses
        self._enumeration: Enumeration | None = None

    def compile_training(self) -> None:
        """Compiles the training pass; on a GPU into a CUDA graph, which is launched as one.

        On a CPU the noise stays that of an uncompiled pass, whose generator is the faster one too.
        """
        if torch.cuda.is_available():
            self._losses = torch.compile(losses, mode="reduce-overhead")
        else:
            self._losses = torch.compile(losses, options={"fallback_random": True})

    def configure_optimizers(self) -> Optimizer | None:
        """The optimizer."""
        return None if self._optimizer_of is None else self._optimizer_of(self.vae)

    def training_step(self, batches: Sequence[Batch], batch_idx: int) -> None:
        """An optimizer step for each batch."""
        for batch in batches:
            self._step(batch)

    def _step(self, batch: Batch) -> None:
        step = self.global_step
        # No two processes see the same noise.
        _seed_noise(keyed_seed(self.seed, step, self.global_rank), self.device)
        if self.temperature is not None:
            self.vae.layer.set_temperature(self.temperature(step))
        optimizer: Any = self.optimizers()
        for group in optimizer.param_groups:
            group["lr"] = self.learning_rate(step)
        self.beta_now.fill_(self.beta(step))
        loss, distortion, rate = self._losses(self.vae, self.objective, batch.images, self.beta_now)
        optimizer.zero_grad()
        self.manual_backward(loss)
        if self.gradient_clip:
            self.clip_gradients(optimizer, self.gradient_clip, "norm")
        optimizer.step()
        # Autocast keeps copies of the weights in half precision until its context ends.
        torch.clear_autocast_cache()
        if self.global_step % self.log_every == 0:
            self._log_curves(loss, distortion, rate)

    def _log_curves(self, loss: Tensor, distortion: Tensor, rate: Tensor) -> None:
        """Writes the training curves; Lightning's own way takes longer, and counts in calls."""
        elbo = "elbo" if self.vae.layer.estimator.hard else "relaxed_elbo"
        values = {"loss": loss, "distortion": distortion, "rate": rate, elbo: -(distortion + rate)}
        self.curves = {f"train/{name}": value.item() for name, value in values.items()}
        step = self.global_step - 1
        if self.temperature is not None:
            self.curves["train/temperature"] = self.temperature(step)
        self.curves["train/learning_rate"] = self.learning_rate(step)
        for logger in self.loggers:
            logger.log_metrics(self.curves, step=step)

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
            bound = sampled_bound(
                self.vae, batch.images, logits, streams, self.test_samples, self.max_decodes
            )
            likelihoods[f"nll_iw{self.test_samples}"] = -bound
        if self._enumeration is not None:
            likelihoods["nll_exact"] = -exact_log_likelihood(self._enumeration, batch.images)
        self._log_means(likelihoods, self.test_split)

    def on_validation_epoch_end(self) -> None:
        """Statistics of the codes over the split."""
        self.log_dict({f"val/{name}": value for name, value in self.usage.compute().items()})
        # The place on the axis; Lightning would count calls of `training_step`.
        self.log("step", float(self.global_step))

    def on_test_epoch_end(self) -> None:
        """Statistics of the codes over the split, and the information between images and codes."""
        statistics = self.usage.compute() | {"mutual_information": self.information.compute()}
        self.log_dict({f"{self.test_split}/{name}": value for name, value in statistics.items()})

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the configuration, as plain values."""
        checkpoint["config"] = self.config

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps to this run's hyperparameters; moments and steps are those of the checkpoint."""
        if "optimizer_states" in checkpoint and (optimizer := self.configure_optimizers()):
            states = checkpoint["optimizer_states"][0]
            for stored, own in zip(states["param_groups"], optimizer.param_groups, strict=True):
                stored |= {key: value for key, value in own.items() if key != "params"}

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
                # Lightning rounds the mean of the weights over processes to a whole number.
                batch_size=len(value) * self.trainer.world_size,
                sync_dist=True,
                prog_bar=split == "val" and name == "elbo",
            )


def _seed_noise(seed: int, device: torch.device) -> None:
    """Seeds the generator that a device draws from by default."""
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)
