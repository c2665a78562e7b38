"""Base classes of optimizer and temperature options; options of trainer, callbacks and paths."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar, Literal

from dvae.options import (
    Count,
    Fraction,
    Limit,
    NonNegative,
    Options,
    PathName,
    Positive,
    Steps,
    count_hint,
)
from dvae.schedules import Constant, Cosine, Linear, Schedule, WarmupThen, resolve_steps

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

__all__ = [
    "CallbackOptions",
    "OptimizerOptions",
    "PathOptions",
    "RateSchedule",
    "TemperatureOptions",
    "TrainerOptions",
]


RateSchedule = Literal["cosine", "linear", "constant"]
"""Name of a schedule of the learning rate; see `OptimizerOptions`."""


class TemperatureOptions(Options):
    """The options of a temperature schedule.

    Attributes:
        name: Its name in configurations.
    """

    name: str = ""

    @property
    def start(self) -> float:
        """τ before training."""
        return 1.0

    @abstractmethod
    def schedule(self, total_steps: int) -> Schedule | None:
        """τ at each step of a run of `total_steps` steps; None without a temperature."""

    def remarks(self, total_steps: int) -> list[str]:
        """Lines on what may be unexpected in such a run: a temperature that does not fall."""
        return []


class OptimizerOptions(Options):
    """The options of an optimizer.

    Attributes:
        name: Its name in configurations.
        lr: Learning rate after the warm-up.
        weight_decay: Weight decay of matrices and kernels.
        schedule: After the warm-up, "cosine" falls to 0 along a half cosine, "linear" along a
            line; "constant" stays.
        warmup: Steps in which the learning rate rises linearly.
        fused: Whether all parameters are updated in one call, which also unscales gradients.
    """

    fused: ClassVar[bool] = True

    name: str = ""
    lr: Positive = 1e-3
    weight_decay: NonNegative = 0.0
    schedule: RateSchedule = "cosine"
    warmup: Steps = 0.05

    def learning_rate(self, total_steps: int) -> Schedule:
        """The learning rate at each step of a run of `total_steps` steps."""
        warmup = resolve_steps(self.warmup, total_steps)
        rest = max(total_steps - warmup, 1)
        schedules = {
            "cosine": Cosine(self.lr, 0.0, steps=rest),
            "linear": Linear(self.lr, 0.0, steps=rest),
            "constant": Constant(self.lr),
        }
        return WarmupThen(self.lr, warmup, schedules[self.schedule])

    def remarks(self, total_steps: int) -> list[str]:
        """Lines on what may be unexpected in such a run: a warm-up that takes all of it."""
        if resolve_steps(self.warmup, total_steps) < total_steps:
            return []
        last = self.learning_rate(total_steps)(total_steps - 1)
        never = "" if self.schedule == "constant" else " and never falls"
        return [
            f"learning rate: rises to {last:.3g}{never}, in {total_steps:,} steps, because of "
            f"optimizer.warmup={self.warmup}{count_hint(self.warmup)}"
        ]

    @abstractmethod
    def build(self, model: nn.Module) -> Optimizer:
        """The optimizer of a model's parameters."""


class TrainerOptions(Options):
    """See `pytorch_lightning.Trainer`.

    Attributes:
        accelerator: "auto" uses a GPU with CUDA if there is one.
        devices: Processes of one run; "auto" uses all devices.
        max_epochs: Epochs.
        gradient_clip: Largest norm of the gradient; 0 for no clipping.
        average: Decay of the averaged weights; see `dvae.training.averaging.AveragedWeights`. None
            for no average.
        log_every: Steps between two entries of the training curves.
        steps_per_call: Optimizer steps in one call of `training_step`.
        save_every: Seconds between two saves of the last checkpoint within an epoch.
        validate_every: Epochs between two validations.
        limit_train_batches: Training batches of an epoch: at most a count, or a fraction.
        limit_eval_batches: The same for batches of a validation or test.
        progress_bar: Whether progress is shown: by a bar on a terminal, elsewhere by lines.
    """

    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    devices: Count | Literal["auto"] = 1
    max_epochs: Count = 14
    gradient_clip: NonNegative = 0.0
    average: Fraction | None = None
    log_every: Count = 50
    steps_per_call: Count = 10
    save_every: NonNegative = 60.0
    validate_every: Count = 1
    limit_train_batches: Limit = 1.0
    limit_eval_batches: Limit = 1.0
    progress_bar: bool = True

    def remarks(self) -> list[str]:
        """Lines on what may be unexpected: one batch, where all may be meant."""
        limits = {
            "limit_train_batches": "an epoch has one step",
            "limit_eval_batches": "validation and test use one batch",
        }
        return [
            f"batches: {what}, because of trainer.{key}=1{count_hint(1)}"
            for key, what in limits.items()
            if getattr(self, key) == 1 and isinstance(getattr(self, key), int)
        ]


class CallbackOptions(Options):
    """Optional callbacks; see `dvae.training.callbacks`.

    Attributes:
        pictures: Whether pictures are written at each validation.
        early_stopping: Validations without improvement after which the run ends.
        gradient_snr: Steps between two measurements of the gradient's signal-to-noise ratio.
    """

    pictures: bool = True
    early_stopping: Count | None = None
    gradient_snr: Count | None = None


class PathOptions(Options):
    """Folders of the data and of the run."""

    data_dir: PathName
    output_dir: PathName
