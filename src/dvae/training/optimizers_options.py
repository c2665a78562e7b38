"""Options of the optimizers, all from torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from dvae.options import Fraction, NonNegative, Positive
from dvae.training.options import OptimizerOptions, RateSchedule

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

__all__ = ["AdamOptions", "AdamWOptions", "RAdamOptions", "SGDOptions"]


class _AdaptiveOptions(OptimizerOptions):
    beta1: Fraction = 0.9
    beta2: Fraction = 0.999

    def _arguments(self) -> dict[str, Any]:
        return {"lr": self.lr, "betas": (self.beta1, self.beta2)}


class AdamOptions(_AdaptiveOptions):
    """See `torch.optim.Adam`."""

    name: Literal["adam"] = "adam"

    def build(self, model: nn.Module) -> Optimizer:
        """The optimizer; see `OptimizerOptions.build`."""
        from torch.optim import Adam

        from dvae.training.optimizers import parameter_groups

        groups = parameter_groups(model, self.weight_decay)
        return Adam(groups, **self._arguments(), fused=True)


class AdamWOptions(_AdaptiveOptions):
    """See `torch.optim.AdamW`."""

    name: Literal["adamw"] = "adamw"
    lr: Positive = 2e-2
    weight_decay: NonNegative = 0.01
    schedule: RateSchedule = "linear"

    def build(self, model: nn.Module) -> Optimizer:
        """The optimizer; see `OptimizerOptions.build`."""
        from torch.optim import AdamW

        from dvae.training.optimizers import parameter_groups

        groups = parameter_groups(model, self.weight_decay)
        return AdamW(groups, **self._arguments(), fused=True)


class RAdamOptions(_AdaptiveOptions):
    """See `torch.optim.RAdam`; fused on the CPU alone."""

    name: Literal["radam"] = "radam"
    fused = False

    def build(self, model: nn.Module) -> Optimizer:
        """The optimizer; see `OptimizerOptions.build`."""
        from dvae.training.optimizers import RAdam, parameter_groups

        groups = parameter_groups(model, self.weight_decay)
        return RAdam(groups, **self._arguments(), foreach=True)


class SGDOptions(OptimizerOptions):
    """See `torch.optim.SGD`."""

    name: Literal["sgd"] = "sgd"
    momentum: Fraction = 0.9

    def build(self, model: nn.Module) -> Optimizer:
        """The optimizer; see `OptimizerOptions.build`."""
        from torch.optim import SGD

        from dvae.training.optimizers import parameter_groups

        groups = parameter_groups(model, self.weight_decay)
        return SGD(groups, lr=self.lr, momentum=self.momentum, fused=True)
