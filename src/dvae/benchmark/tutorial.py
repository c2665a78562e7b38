"""A tutorial's program, as a yardstick: `python -m dvae.benchmark.tutorial [overrides]`.

It trains the configured network on the configured data with the `tutorial` baseline and validates
after each epoch, with one-hot codes.
"""

import sys
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from dvae.benchmark.baselines import train_step, tutorial_batches
from dvae.commands.checking import check
from dvae.commands.cli import compose
from dvae.data.binarize import to_unit
from dvae.distributions import gumbel_noise, one_hot
from dvae.models.vae import VAE
from dvae.tasks.vae.config import VAEConfig
from dvae.training.devices import resolve_device

__all__ = ["TAG", "main"]

TAG = "val/elbo"


def main(arguments: list[str]) -> None:
    """Trains and writes TensorBoard events, whose times leave out the validations."""
    folder = "hydra.run.dir="
    output = next(a.removeprefix(folder) for a in arguments if a.startswith(folder))
    overrides = [a for a in arguments if not a.startswith(folder)]
    config = check(VAEConfig, compose("train", [*overrides, f"paths.output_dir={output}"]))
    torch.manual_seed(config.seed)
    device = resolve_device(config.trainer.accelerator, "trainer.accelerator")
    vae = config.build_model().to(device)
    batches, steps = tutorial_batches(config)
    step = train_step(config, vae, batches)
    images = to_unit(config.data.build(config.paths.data_dir, config.seed).images("val")).to(device)
    paused = 0.0
    with SummaryWriter(Path(output)) as board:
        for epoch in range(config.trainer.max_epochs):
            for _ in range(steps):
                step()
            start = time.time()
            board.add_scalar(TAG, _elbo(vae, images), (epoch + 1) * steps, walltime=start - paused)
            paused += time.time() - start


@torch.no_grad()
def _elbo(vae: VAE, images: Tensor) -> float:
    """The mean bound with one-hot codes, in nats."""
    vae.eval()
    total = 0.0
    for batch in images.split(1000):
        logits = vae.encode(batch)
        codes = (logits + gumbel_noise(logits.shape, device=logits.device)).argmax(-1)
        z = one_hot(codes, vae.num_categories)
        total -= (vae.distortion(batch, z) + vae.rate(logits, z)).sum().item()
    vae.train()
    return total / len(images)


if __name__ == "__main__":
    main(sys.argv[1:])
