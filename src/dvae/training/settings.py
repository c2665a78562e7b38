"""How a module is trained and tested."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn
from torch.optim import Optimizer

from dvae.models.bounds import MAX_DECODES
from dvae.schedules import Schedule

__all__ = ["Evaluation", "Training"]


@dataclass(frozen=True)
class Training:
    """How a module is trained.

    Attributes:
        optimizer: Builds the optimizer of a module's parameters.
        learning_rate: The learning rate at each step.
        temperature: τ at each global step; None for an estimator that has none.
        gradient_clip: Largest norm of the gradient; 0 clips nothing.
        seed: Seed of the noise.
        log_every: Steps between two entries of the training curves.
        skip_nonfinite: Whether steps whose gradient is not finite are left out; they end the run
            otherwise.
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
    """How a module is tested.

    Attributes:
        split: The split, after which metrics are named.
        num_samples: m, samples of an importance-weighted bound, or episodes; 0 leaves it out.
        seed: Seed of the draws.
        max_decodes: Codes that are decoded at a time.
    """

    split: str = "test"
    num_samples: int = 100
    seed: int = 0
    max_decodes: int = MAX_DECODES
