"""Averaged weights, which are validated, tested and stored in place of the trained ones."""

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor

__all__ = ["TRAINED", "AveragedWeights"]

TRAINED = "trained_weights"
"""Key of the trained weights in a checkpoint whose `state_dict` holds averages."""
_EARLY = 10
"""In the first steps the average covers a part of the past, so that it forgets the start."""


class AveragedWeights(Callback):
    """Keeps an exponential moving average of the weights: a ← d a + (1 − d) w after each step.

    After n steps d is min(decay, (1 + n) / (10 + n)). Running statistics of batch normalization are
    averaged alike; temperatures and counters are not. Validation uses the averages, and
    checkpoints hold them as the model's weights, beside the trained ones from which a run resumes.

    Lightning's `WeightAveraging` averages once in each call of `training_step`, which here takes
    several steps, and also averages temperatures.

    Args:
        decay: d, in [0, 1).

    References:
        Polyak, Juditsky 1992; `torch.optim.swa_utils` for the moving average.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self._count = 0
        self._averages: dict[str, Tensor] = {}
        self._trained: dict[str, Tensor] = {}

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Resumes: takes the averages from the checkpoint, and restores the trained weights."""
        if trainer.state.fn == "fit" and TRAINED in checkpoint:
            names = _averaged(pl_module)
            self._averages = {name: checkpoint["state_dict"][name].clone() for name in names}
            pl_module.load_state_dict(checkpoint[TRAINED], strict=False)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Starts from the weights, or from the averages of the checkpoint."""
        # The weights keep their places in memory from here on.
        self._trained = _averaged(pl_module)
        self._averages = {
            name: self._averages.get(name, value).to(value.device, copy=True)
            for name, value in self._trained.items()
        }
        # A call of `training_step` takes several steps of the optimizer.
        trainer.optimizers[0].register_step_post_hook(lambda *_: self._update())

    @torch.no_grad()
    def _update(self) -> None:
        decay = min(self.decay, (1 + self._count) / (_EARLY + self._count))
        averages, trained = list(self._averages.values()), list(self._trained.values())
        torch._foreach_lerp_(averages, trained, 1 - decay)
        self._count += 1

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Puts the averages in place of the trained weights."""
        self._swap()

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Puts the trained weights back."""
        self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, average in self._averages.items():
            trained = self._trained[name]
            kept = trained.clone()
            trained.copy_(average)
            average.copy_(kept)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Makes the averages the model's weights, and adds the trained ones."""
        if self._averages:
            weights = checkpoint["state_dict"]
            checkpoint[TRAINED] = {name: weights[name] for name in self._averages}
            checkpoint["state_dict"] = {**weights, **self._averages}

    def state_dict(self) -> dict[str, Any]:
        """The number of steps so far."""
        return {"count": self._count}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the number of steps."""
        self._count = state_dict["count"]


def _averaged(module: pl.LightningModule) -> dict[str, Tensor]:
    """The weights and running statistics of a module by name; they share its memory."""
    return {
        name: value
        for name, value in module.state_dict().items()
        if value.is_floating_point() and not name.endswith("temperature")
    }
