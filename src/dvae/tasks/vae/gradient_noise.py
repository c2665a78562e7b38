"""Measures the signal-to-noise ratio of the gradient while a VAE trains."""

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities.types import STEP_OUTPUT

from dvae.data.loader import Batch
from dvae.models.gradients import draws, signal_to_noise
from dvae.tasks.vae.module import VAEModule

__all__ = ["GradientNoise"]

_ESTIMATES = 20
"""Estimates of the gradient in each measurement."""


class GradientNoise(pl.Callback):
    """Logs `train/gradient_snr`, the signal-to-noise ratio of the gradient estimator.

    Each measurement estimates the distortion's gradient with respect to the logits of one batch
    several times; see `dvae.models.gradients.signal_to_noise`. It changes neither weights, nor
    baselines, nor the random numbers of training.

    Args:
        every_n_steps: Steps between two measurements.
    """

    def __init__(self, every_n_steps: int) -> None:
        self.every_n_steps = every_n_steps
        self._next = every_n_steps

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Sets the step of the next measurement."""
        self._next = (trainer.global_step // self.every_n_steps + 1) * self.every_n_steps

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: STEP_OUTPUT,
        batch: list[Batch],
        batch_idx: int,
    ) -> None:
        """Measures and logs, at the end of the call that contains the step."""
        if trainer.global_step < self._next or not isinstance(pl_module, VAEModule):
            return
        self.on_train_start(trainer, pl_module)
        images = batch[-1].images
        vae, logger = pl_module.vae, trainer.logger
        if not isinstance(logger, TensorBoardLogger):
            return
        estimator, temperature = vae.layer.estimator, vae.layer.temperature.item()
        vae.eval()
        devices = [pl_module.device] if pl_module.device.type == "cuda" else []
        with torch.random.fork_rng(devices), torch.inference_mode(False), torch.enable_grad():
            logits = vae.encode(images).detach()
            estimates = list(draws(vae, estimator, logits, images, temperature, _ESTIMATES))
        vae.train()
        ratio = signal_to_noise(torch.stack(estimates)).item()
        logger.experiment.add_scalar("train/gradient_snr", ratio, trainer.global_step)
