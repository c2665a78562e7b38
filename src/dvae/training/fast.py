"""The fastest settings for a run on the machine at hand."""

from dataclasses import dataclass
from typing import Any

import torch

from dvae.training.compilation import obstacle
from dvae.training.config import RunConfig
from dvae.training.devices import has_gpu

__all__ = ["Speed", "choose_speed"]

_WORTH_COMPILING = 10_000
"""Optimizer steps from which on compilation saves more time than it takes."""
_BF16 = ("amx_bf16", "avx512_bf16")
"""Capabilities of a CPU that computes in bf16, instead of converting to float32 and back."""


@dataclass(frozen=True)
class Speed:
    """Settings that change the time of a run, and its numbers only by rounding.

    Attributes:
        compile: See `RunConfig`.
        precision: See `RunConfig`.
        reason: What was chosen and why, in one line.
    """

    compile: bool
    precision: Any
    reason: str


def choose_speed(config: RunConfig, steps: int) -> Speed:
    """Chooses compilation and precision with `fast=true`; otherwise takes those of the run.

    The choice depends on the configuration and the machine alone, so that equal runs get equal
    numbers. `compile=true`, and any precision but 32, are kept.

    Args:
        config: The configuration.
        steps: Optimizer steps of the run.
    """
    if not config.fast:
        return Speed(config.compile, config.precision, "")
    on_gpu = has_gpu() and config.trainer.accelerator != "cpu"
    compiles, why = _compilation(config, steps, on_gpu)
    precision, why_precision = _precision(config, on_gpu)
    return Speed(compiles, precision, f"{why}; {why_precision}")


def _compilation(config: RunConfig, steps: int, on_gpu: bool) -> tuple[bool, str]:
    if config.compile:
        return True, "compiled, as compile=true asks"
    if steps < _WORTH_COMPILING:
        return False, (
            f"not compiled, as {steps:,} steps are too few to earn it back "
            f"(from {_WORTH_COMPILING:,} on)"
        )
    if found := obstacle(on_gpu):
        return False, f"not compiled: {found}"
    return True, f"compiled, as {steps:,} steps earn it back"


def _precision(config: RunConfig, on_gpu: bool) -> tuple[Any, str]:
    if config.precision != 32:
        return config.precision, f"precision={config.precision}, as given"
    device = "GPU" if on_gpu else "CPU"
    if torch.cuda.is_bf16_supported(including_emulation=False) if on_gpu else _cpu_has_bf16():
        return "bf16", f"precision=bf16, which this {device} computes in"
    return 32, f"precision=32, as this {device} does not compute in bf16"


def _cpu_has_bf16() -> bool:
    # Earlier versions of torch do not say what a CPU can do.
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(name) for name in _BF16)
