"""Parameter groups with and without weight decay, and a fast RAdam."""

from collections.abc import Callable
from math import sqrt
from typing import Any

import torch
from torch import nn
from torch.optim.adam import adam

__all__ = ["RAdam", "parameter_groups"]


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Splits parameters: matrices and kernels decay; biases, norms and the prior do not."""
    parameters = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    decays = [p for name, p in parameters if name.endswith("weight") and p.ndim > 1]
    others = [p for name, p in parameters if not (name.endswith("weight") and p.ndim > 1)]
    return [
        {"params": decays, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]


class RAdam(torch.optim.RAdam):
    """`torch.optim.RAdam` with one fused call for all parameters on the CPU.

    Once the second moments have seen a few steps, RAdam is Adam with a rectified learning rate,

        lr · sqrt((ρ_t − 4)(ρ_t − 2) ρ_∞ / ((ρ_∞ − 4)(ρ_∞ − 2) ρ_t)),

    with ρ_∞ = 2 / (1 − β₂) − 1 and ρ_t = ρ_∞ − 2 t β₂^t / (1 − β₂^t), and torch has a fused Adam.
    The states are those of `torch.optim.RAdam`. Liu et al. 2020 (arXiv:1908.03265), algorithm 2.
    """

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Takes one optimizer step; returns what the closure returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        calls = []
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            rate = self._rectified_lr(group, parameters)
            if rate is None:
                super().step()
                return loss
            calls.append((group, parameters, *rate))
        with torch.no_grad():
            for group, parameters, lr, eps in calls:
                states = [self.state[p] for p in parameters]
                adam(
                    parameters,
                    [p.grad for p in parameters],
                    [state["exp_avg"] for state in states],
                    [state["exp_avg_sq"] for state in states],
                    [],
                    [state["step"] for state in states],
                    fused=True,
                    amsgrad=False,
                    beta1=group["betas"][0],
                    beta2=group["betas"][1],
                    lr=lr,
                    weight_decay=group["weight_decay"],
                    eps=eps,
                    maximize=False,
                )
        return loss

    def _rectified_lr(
        self, group: dict[str, Any], parameters: list[nn.Parameter]
    ) -> tuple[float, float] | None:
        """Adam's learning rate and ε for parameters; None where Adam cannot take the step."""
        steps = {float(self.state[p]["step"]) if p in self.state else 0.0 for p in parameters}
        if len(steps) != 1 or any(p.device.type != "cpu" for p in parameters):
            return None
        step, beta2 = steps.pop() + 1, group["betas"][1]
        correction = 1 - beta2**step
        limit = 2 / (1 - beta2) - 1
        length = limit - 2 * step * beta2**step / correction
        if length <= 5:
            return None
        rectified = (length - 4) * (length - 2) * limit / ((limit - 4) * (limit - 2) * length)
        # RAdam adds ε before it corrects the bias of the second moment, Adam after it.
        return group["lr"] * sqrt(rectified), group["eps"] / sqrt(correction)
