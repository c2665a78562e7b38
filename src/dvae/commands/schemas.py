"""Schemas of the configurations: every key, its type and its range, in plain values.

Nothing here imports torch, so that mistakes are answered at once.
"""

from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

PathName = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


def _count_or_fraction(value: int | float) -> int | float:
    if value < 0 or (isinstance(value, float) and value > 1):
        raise ValueError("a whole number >= 0 or a fraction from 0.0 to 1.0")
    return value


Steps = Annotated[int | float, AfterValidator(_count_or_fraction)]
"""A count of optimizer steps (a whole number), or a fraction of the run (with a decimal point)."""


def _positive(value: int | float) -> int | float:
    if value == 0:
        raise ValueError("a whole number >= 1 or a fraction above 0.0 and up to 1.0")
    return value


Limit = Annotated[Steps, AfterValidator(_positive)]
"""At most a count of batches (a whole number), or a fraction of them (with a decimal point)."""
MAX_ENUMERATION = 16_384
"""As in `dvae.distributions`, which would import torch."""
DatasetName = Literal["mnist", "fashion_mnist", "kmnist", "emnist", "omniglot"]
Binarization = Literal["dynamic", "fixed", "none"]
Split = Literal["train", "val", "test"]
Device = Literal["auto", "cpu", "cuda"]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class Schema(BaseModel):
    """Plain values of exact types; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Data(Schema):
    """See `dvae.data.module.ImageDataModule`."""

    name: DatasetName
    binarization: Binarization
    validation: Annotated[int, Field(ge=0)]
    batch_size: Annotated[int, Field(ge=2)]
    eval_batch_size: Count


class _Model(Schema):
    num_latents: Count
    num_categories: Annotated[int, Field(ge=2)]
    activation: Literal["elu", "gelu", "leaky_relu", "relu", "silu", "tanh"]
    normalization: Literal["none", "batch", "layer"]
    base_rates: bool = True


class MLP(_Model):
    """See `dvae.networks.mlp.MLPEncoder`."""

    name: Literal["mlp"]
    hidden: list[Count]


class Conv(_Model):
    """See `dvae.networks.mlp.ConvEncoder`."""

    name: Literal["conv"]
    hidden: Count


class Prior(Schema):
    """See `dvae.priors.factorized`."""

    name: Literal["uniform", "learned"]


class Estimator(Schema):
    """See `dvae.estimators`: those without options."""

    name: Literal["exact", "gumbel_softmax", "reinmax", "straight_through", "zgr"]


class STGumbelSoftmax(Schema):
    """See `dvae.estimators.STGumbelSoftmax`."""

    name: Literal["st_gumbel_softmax"]
    backward_temperature: Positive | None


class GumbelRao(Schema):
    """See `dvae.estimators.GumbelRao` and `dvae.estimators.ReinMaxRao`."""

    name: Literal["gumbel_rao", "reinmax_rao"]
    num_samples: Count


class GappedST(Schema):
    """See `dvae.estimators.GappedST`."""

    name: Literal["gapped_st"]
    gap: NonNegative


class Reinforce(Schema):
    """See `dvae.estimators.Reinforce`."""

    name: Literal["reinforce"]
    decay: Annotated[float, Field(ge=0, lt=1)] | None


class RLOO(Schema):
    """See `dvae.estimators.RLOO`."""

    name: Literal["rloo"]
    num_samples: Annotated[int, Field(ge=2)]


EstimatorName = Literal[
    "exact",
    "gapped_st",
    "gumbel_rao",
    "gumbel_softmax",
    "reinforce",
    "reinmax",
    "reinmax_rao",
    "rloo",
    "st_gumbel_softmax",
    "straight_through",
    "zgr",
]
SCORE_FUNCTIONS = ("reinforce", "rloo")
NO_TEMPERATURE = ("exact", "reinforce", "rloo", "straight_through", "zgr")


class NoTemperature(Schema):
    """For estimators that have no temperature."""

    name: Literal["none"]


class _Temperature(Schema):
    initial: Positive


class ConstantTemperature(_Temperature):
    """The initial temperature throughout."""

    name: Literal["constant"]


class AnnealedTemperature(_Temperature):
    """A temperature that falls from its initial value to a minimum."""

    minimum: Positive
    update_every: Count


class ExponentialTemperature(AnnealedTemperature):
    """See `dvae.schedules.Exponential`: decay by a rate per step, or over a number of steps."""

    name: Literal["exponential"]
    rate: NonNegative | None
    steps: Steps | None


class RampTemperature(AnnealedTemperature):
    """See `dvae.schedules.Linear` and `dvae.schedules.Cosine`."""

    name: Literal["linear", "cosine"]
    steps: Steps


class Objective(Schema):
    """See `dvae.models.objectives`; `beta` weighs the rate, reached linearly over `warmup`."""

    name: Literal["elbo", "iwae", "vimco"]
    beta: NonNegative
    warmup: Steps
    num_samples: Count
    kl: Literal["discrete", "relaxed"]
    prior_temperature: Positive | None


class _Optimizer(Schema):
    lr: Positive
    weight_decay: NonNegative
    schedule: Literal["cosine", "constant"]
    warmup: Steps


class Adam(_Optimizer):
    """See `torch.optim`."""

    name: Literal["adam", "adamw", "radam"]
    beta1: Annotated[float, Field(ge=0, lt=1)]
    beta2: Annotated[float, Field(ge=0, lt=1)]


class SGD(_Optimizer):
    """See `torch.optim.SGD`."""

    name: Literal["sgd"]
    momentum: Annotated[float, Field(ge=0, lt=1)]


class Trainer(Schema):
    """See `pytorch_lightning.Trainer`."""

    accelerator: Literal["auto", "cpu", "gpu"]
    devices: Count | Literal["auto"]
    max_epochs: Count
    gradient_clip: NonNegative
    log_every: Count
    steps_per_call: Count
    save_every: NonNegative
    validate_every: Count
    limit_train_batches: Limit
    limit_eval_batches: Limit
    progress_bar: bool


class Callbacks(Schema):
    """What is watched while a model trains: see `dvae.training.callbacks`."""

    pictures: bool
    early_stopping: Count | None
    gradient_snr: Count | None


class Paths(Schema):
    """Where data lie and where a run writes."""

    data_dir: PathName
    output_dir: PathName


class StoredConfig(Schema):
    """What a checkpoint of any task needs of the configuration that it was trained with."""

    task: str
    estimator: Annotated[
        Estimator | STGumbelSoftmax | GumbelRao | GappedST | Reinforce | RLOO,
        Field(discriminator="name"),
    ]
    temperature: Annotated[
        NoTemperature | ConstantTemperature | ExponentialTemperature | RampTemperature,
        Field(discriminator="name"),
    ]
    seed: Seed


class RunConfig(StoredConfig):
    """What all runs are made of; each task has a schema of its own with more."""

    optimizer: Annotated[Adam | SGD, Field(discriminator="name")]
    trainer: Trainer
    callbacks: Callbacks
    paths: Paths
    precision: Literal[16, 32, 64, "bf16"]
    compile: bool
    on_nonfinite: Literal["stop", "skip"]
    resume: PathName | None


class ModelConfig(StoredConfig):
    """What a checkpoint of a VAE needs."""

    # Checkpoints from before there were other tasks do not name theirs.
    task: Literal["vae"] = "vae"
    data: Data
    model: Annotated[MLP | Conv, Field(discriminator="name")]
    prior: Prior


class TrainConfig(ModelConfig, RunConfig):
    """Everything that a run of a VAE is made of."""

    objective: Objective
    test_samples: Annotated[int, Field(ge=0)]


AnySchema = TypeVar("AnySchema", bound=Schema)
