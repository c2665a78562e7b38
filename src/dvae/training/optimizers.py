"""Optimizers by name."""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn, optim

__all__ = ["OPTIMIZERS", "configure", "parameter_groups"]

OPTIMIZERS: dict[str, Callable[..., optim.Optimizer]] = {
    "adam": partial(optim.Adam, fused=True),
    "adamw": partial(optim.AdamW, fused=True),
    "radam": partial(optim.RAdam, foreach=True),
    "sgd": partial(optim.SGD, fused=True),
}
"""The names by which configurations know the optimizers; RAdam has no fused form."""


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Splits parameters: matrices and kernels decay; biases, norms and the prior do not."""
    parameters = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    decays = [p for name, p in parameters if name.endswith("weight") and p.ndim > 1]
    others = [p for name, p in parameters if not (name.endswith("weight") and p.ndim > 1)]
    return [
        {"params": decays, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]


def configure(
    model: nn.Module, *, name: str, lr: float, weight_decay: float, **options: Any
) -> optim.Optimizer:
    """Builds an optimizer.

    Args:
        model: Whose parameters are optimized.
        name: A name out of `OPTIMIZERS`.
        lr: Learning rate, until a schedule sets another.
        weight_decay: For matrices and kernels only.
        **options: Further arguments of the optimizer's constructor, which refuses unknown ones.
    """
    return OPTIMIZERS[name](parameter_groups(model, weight_decay), lr=lr, **options)
