"""Parameter groups with and without weight decay."""

from typing import Any

from torch import nn

__all__ = ["parameter_groups"]


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Splits parameters: matrices and kernels decay; biases, norms and the prior do not."""
    parameters = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    decays = [p for name, p in parameters if name.endswith("weight") and p.ndim > 1]
    others = [p for name, p in parameters if not (name.endswith("weight") and p.ndim > 1)]
    return [
        {"params": decays, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
