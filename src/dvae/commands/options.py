"""The configuration of `scripts/gradients.py`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from dvae.estimators import ESTIMATORS
from dvae.options import Count, Device, Options, PathName, Positive, Seed, one_of
from dvae.training.options import PathOptions

__all__ = ["GradientsConfig"]

EstimatorName = Annotated[str, one_of(ESTIMATORS)]


class GradientsConfig(Options):
    """See `dvae.commands.gradients.compare_gradients`."""

    checkpoint: PathName | None = None
    estimators: Annotated[list[EstimatorName], Field(min_length=1)] | None = None
    temperatures: list[Positive] = Field([0.1, 0.2, 0.5, 1.0, 2.0], min_length=1)
    num_images: Count = 16
    num_draws: Annotated[int, Field(ge=2)] = 300
    device: Device = "auto"
    seed: Seed = 0
    paths: PathOptions
