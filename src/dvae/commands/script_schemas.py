"""Schemas of the scripts besides training: those that read a checkpoint, and the measuring ones."""

from typing import Annotated

from pydantic import Field

from dvae.commands.schemas import (
    Binarization,
    Count,
    DatasetName,
    Device,
    EstimatorName,
    PathName,
    Paths,
    Positive,
    Schema,
    Seed,
    Split,
)


class DataOverride(Schema):
    """Data keys that take the place of a checkpoint's own where they are not null."""

    name: DatasetName | None
    binarization: Binarization | None
    validation: Annotated[int, Field(ge=0)] | None


class FromCheckpointConfig(Schema):
    """What all scripts share that read a checkpoint; null leaves a choice to the task."""

    checkpoint: PathName
    data: DataOverride
    data_dir: PathName
    device: Device
    relaxed_temperature: Positive | None
    seed: Seed


class EvaluateConfig(FromCheckpointConfig):
    """See `dvae.commands.evaluate.evaluate`."""

    split: Split
    num_samples: Annotated[int, Field(ge=0)] | None
    batch_size: Count | None
    max_decodes: Count | None
    output: PathName | None
    progress_bar: bool


class SampleConfig(FromCheckpointConfig):
    """See `dvae.commands.sample.sample`."""

    what: str | None
    num_images: Count | None
    num_steps: Annotated[int, Field(ge=2)] | None
    split: Split | None
    output_dir: PathName | None


class GradientsConfig(Schema):
    """See `dvae.commands.gradients`."""

    checkpoint: PathName | None
    estimators: Annotated[list[EstimatorName], Field(min_length=1)] | None
    temperatures: Annotated[list[Positive], Field(min_length=1)]
    num_images: Count
    num_draws: Annotated[int, Field(ge=2)]
    device: Device
    seed: Seed
    paths: Paths


class BenchmarkConfig(Schema):
    """See `dvae.benchmark.cases`."""

    cases: Annotated[list[str], Field(min_length=1)]
    relative_to: str
    shared: list[str]
    extra: list[str]
    steps: Count
    rounds: Count
    warmup: Annotated[int, Field(ge=0)]
    profile: bool
    paths: Paths
