"""Optimizers and their learning rate schedules."""

from collections.abc import Callable
from typing import Any

from torch import nn, optim
from torch.optim.lr_scheduler import LambdaLR

from dvae.schedules import WarmupCosine, resolve_steps

__all__ = ["OPTIMIZERS", "configure", "parameter_groups"]

OPTIMIZERS: dict[str, Callable[..., optim.Optimizer]] = {
    "adam": optim.Adam,
    "adamw": optim.AdamW,
    "radam": optim.RAdam,
    "sgd": optim.SGD,
}
"""The names by which configurations know the optimizers."""


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
    model: nn.Module,
    total_steps: int,
    *,
    name: str,
    lr: float,
    weight_decay: float,
    schedule: str,
    warmup: int | float,
    **options: Any,
) -> dict[str, Any]:
    """Builds what Lightning's `configure_optimizers` returns.

    Args:
        model: Whose parameters are optimized.
        total_steps: Optimizer steps of the run.
        name: A name out of `OPTIMIZERS`.
        lr: Learning rate at its peak.
        weight_decay: For matrices and kernels only.
        schedule: "cosine" (to 0 at the end) or "constant", after the warm-up.
        warmup: Steps of linear rise, a count or a fraction of the run.
        **options: Further arguments of the optimizer's constructor, which refuses unknown ones.
    """
    optimizer = OPTIMIZERS[name](parameter_groups(model, weight_decay), lr=lr, **options)
    final = 0.0 if schedule == "cosine" else 1.0
    factor = WarmupCosine(resolve_steps(warmup, total_steps), total_steps, final)
    scheduler = {"scheduler": LambdaLR(optimizer, factor), "interval": "step"}
    return {"optimizer": optimizer, "lr_scheduler": scheduler}
