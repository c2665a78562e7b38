"""Configurations of the scripts that read a checkpoint."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from dvae.data.options import Binarization
from dvae.data.sources import SOURCES
from dvae.options import (
    Count,
    Device,
    FullPath,
    Options,
    PathName,
    Positive,
    Seed,
    Share,
    Size,
    Split,
    one_of,
)

__all__ = [
    "DataOverride",
    "EncodeConfig",
    "EvaluateConfig",
    "FromCheckpointConfig",
    "SampleConfig",
]


class DataOverride(Options):
    """Data keys that override those of a checkpoint; null keeps the checkpoint's value."""

    name: Annotated[str, one_of(SOURCES)] | None = None
    root: FullPath | None = None
    train: FullPath | None = None
    val: FullPath | None = None
    test: FullPath | None = None
    binarization: Binarization | None = None
    validation: Share | None = None


class FromCheckpointConfig(Options):
    """Keys of all scripts that read a checkpoint; for null, the task chooses."""

    checkpoint: PathName
    data: DataOverride
    data_dir: PathName
    device: Device = "auto"
    relaxed_temperature: Positive | None = None
    seed: Seed = 0


class EvaluateConfig(FromCheckpointConfig):
    """See `dvae.commands.evaluate.evaluate`."""

    split: Split = "test"
    num_samples: Size | None = None
    num_episodes: Annotated[int, Field(ge=2)] | None = None
    batch_size: Count | None = None
    max_decodes: Count | None = None
    output: PathName | None = None
    progress_bar: bool = True


class EncodeConfig(FromCheckpointConfig):
    """See `dvae.commands.encode.encode`."""

    splits: list[Split] = Field(["train", "val", "test"], min_length=1)
    codes: Literal["argmax", "sample"] = "argmax"
    logits: bool = False
    batch_size: Count | None = None
    output_dir: PathName | None = None
    progress_bar: bool = True


class SampleConfig(FromCheckpointConfig):
    """See `dvae.commands.sample.sample`."""

    what: str | None = None
    num_images: Count | None = None
    num_steps: Annotated[int, Field(ge=2)] | None = None
    split: Split | None = None
    images: PathName | list[PathName] | None = None
    codes: PathName | None = None
    sampling_temperature: Positive | None = None
    label: Size | None = None
    keep: Share | None = None
    separate: bool | None = None
    output_dir: PathName | None = None
