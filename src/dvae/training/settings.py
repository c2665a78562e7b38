"""Options of training and evaluation, as plain objects."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn
from torch.optim import Optimizer

from dvae.models.bounds import MAX_DECODES
from dvae.schedules import Schedule

__all__ = ["Evaluation", "Training"]


@dataclass(frozen=True)
class Training:
    """Options of training.

    Attributes:
        optimizer: Builds the optimizer of a module's parameters.
        learning_rate: The learning rate at each step.
        temperature: τ at each global step; None for an estimator without a temperature.
        gradient_clip: Largest norm of the gradient; 0 for no clipping.
        seed: Seed of the noise.
        log_every: Steps between two entries of the training curves.
        skip_nonfinite: Whether steps whose gradient is not finite are skipped; otherwise, they end
            the run.
    """

    optimizer: Callable[[nn.Module], Optimizer]
    learning_rate: Schedule
    temperature: Schedule | None = None
    gradient_clip: float = 0.0
    seed: int = 0
    log_every: int = 50
    skip_nonfinite: bool = False


@dataclass(frozen=True)
class Evaluation:
    """Options of evaluation.

    Attributes:
        split: The split, which prefixes the names of metrics.
        num_samples: m, samples of the importance-weighted bound; 0 for no bound.
        seed: Seed of the draws.
        max_decodes: Most codes that are decoded at once.
        shades: Whether images have more than black and white pixels, so that PSNR and SSIM of
            reconstructions say something.
    """

    split: str = "test"
    num_samples: int = 100
    seed: int = 0
    max_decodes: int = MAX_DECODES
    shades: bool = False
