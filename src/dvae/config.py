"""Schemas of the configurations: every key, its type and its range, in plain values.

A schema checks what Hydra composed and what a checkpoint carries alike. Nothing here imports
torch, so that mistakes are answered at once.
"""

from difflib import SequenceMatcher
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from dvae.errors import UserError

__all__ = [
    "EvaluateConfig",
    "FromCheckpointConfig",
    "SampleConfig",
    "TrainConfig",
    "nearest",
    "parse",
]

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


def _count_or_fraction(value: int | float) -> int | float:
    if value < 0 or (isinstance(value, float) and value > 1):
        raise ValueError("a whole number >= 0 or a fraction from 0.0 to 1.0")
    return value


Steps = Annotated[int | float, AfterValidator(_count_or_fraction)]
"""A count of optimizer steps (a whole number), or a fraction of the run (with a decimal point)."""
MAX_ENUMERATION = 16_384
"""As in `dvae.distributions`, which would import torch."""
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class Schema(BaseModel):
    """Plain values of exact types; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Data(Schema):
    """See `dvae.data.module.ImageDataModule`."""

    name: Literal["mnist", "fashion_mnist", "kmnist", "emnist", "omniglot"]
    binarization: Literal["dynamic", "fixed", "none"]
    validation: Annotated[int, Field(ge=0)]
    batch_size: Annotated[int, Field(ge=2)]
    eval_batch_size: Count


class _Model(Schema):
    num_latents: Count
    num_categories: Annotated[int, Field(ge=2)]
    activation: Literal["elu", "gelu", "leaky_relu", "relu", "silu", "tanh"]
    normalization: Literal["none", "batch", "layer"]


class MLP(_Model):
    """See `dvae.networks.MLPEncoder`."""

    name: Literal["mlp"]
    hidden: list[Count]


class Conv(_Model):
    """See `dvae.networks.ConvEncoder`."""

    name: Literal["conv"]
    hidden: Count


class Prior(Schema):
    """See `dvae.priors`."""

    name: Literal["uniform", "learned"]


class Estimator(Schema):
    """See `dvae.estimators`: those without options."""

    name: Literal["exact", "gumbel_softmax", "reinmax", "straight_through", "zgr"]


class STGumbelSoftmax(Schema):
    """See `dvae.estimators.STGumbelSoftmax`."""

    name: Literal["st_gumbel_softmax"]
    backward_temperature: Positive | None


class GumbelRao(Schema):
    """See `dvae.estimators.GumbelRao`."""

    name: Literal["gumbel_rao"]
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


class _AnnealedTemperature(_Temperature):
    minimum: Positive
    update_every: Count


class ExponentialTemperature(_AnnealedTemperature):
    """See `dvae.schedules.Exponential`: decay by a rate per step, or over a number of steps."""

    name: Literal["exponential"]
    rate: NonNegative | None
    steps: Steps | None


class RampTemperature(_AnnealedTemperature):
    """See `dvae.schedules.Linear` and `dvae.schedules.Cosine`."""

    name: Literal["linear", "cosine"]
    steps: Steps


class Objective(Schema):
    """See `dvae.objectives`; `beta` weighs the rate, reached linearly over `warmup`."""

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
    validate_every: Count
    limit_train_batches: Steps
    limit_eval_batches: Steps
    progress_bar: bool


class Callbacks(Schema):
    """What is watched while a model trains: see `dvae.callbacks`."""

    pictures: bool
    learning_rate: bool
    early_stopping: Count | None
    gradient_snr: Count | None


class Paths(Schema):
    """Where data lie and where a run writes."""

    data_dir: str
    output_dir: str


class TrainConfig(Schema):
    """Everything that a run is made of."""

    data: Data
    model: Annotated[MLP | Conv, Field(discriminator="name")]
    prior: Prior
    estimator: Annotated[
        Estimator | STGumbelSoftmax | GumbelRao | GappedST | Reinforce | RLOO,
        Field(discriminator="name"),
    ]
    temperature: Annotated[
        NoTemperature | ConstantTemperature | ExponentialTemperature | RampTemperature,
        Field(discriminator="name"),
    ]
    objective: Objective
    optimizer: Annotated[Adam | SGD, Field(discriminator="name")]
    trainer: Trainer
    callbacks: Callbacks
    paths: Paths
    seed: Seed
    precision: Literal[16, 32, 64, "bf16"]
    compile: bool
    resume: str | None
    test_samples: Annotated[int, Field(ge=0)]


class DataOverride(Schema):
    """Data keys that take the place of a checkpoint's own where they are not null."""

    name: Literal["mnist", "fashion_mnist", "kmnist", "emnist", "omniglot"] | None
    binarization: Literal["dynamic", "fixed", "none"] | None
    validation: Annotated[int, Field(ge=0)] | None


class FromCheckpointConfig(Schema):
    """What all scripts share that read a checkpoint."""

    checkpoint: str
    data: DataOverride
    data_dir: str
    device: Literal["auto", "cpu", "cuda"]
    relaxed_temperature: Positive | None
    seed: Seed


class EvaluateConfig(FromCheckpointConfig):
    """See `dvae.evaluate.evaluate`."""

    split: Literal["train", "val", "test"]
    num_samples: Annotated[int, Field(ge=0)]
    batch_size: Count
    output: str | None
    progress_bar: bool


class SampleConfig(FromCheckpointConfig):
    """See `dvae.sample.sample`."""

    what: Literal["prior", "reconstructions", "traversal", "interpolation"]
    num_images: Count | None
    num_steps: Annotated[int, Field(ge=2)]
    split: Literal["train", "val", "test"]
    output_dir: str | None


class GradientsConfig(Schema):
    """See `dvae.compare_gradients`."""

    checkpoint: str | None
    estimators: Annotated[list[EstimatorName], Field(min_length=1)] | None
    temperatures: Annotated[list[Positive], Field(min_length=1)]
    num_images: Count
    num_draws: Annotated[int, Field(ge=2)]
    device: Literal["auto", "cpu", "cuda"]
    seed: Seed
    paths: Paths


AnySchema = TypeVar("AnySchema", bound=Schema)


def parse(schema: type[AnySchema], values: Any) -> AnySchema:
    """Checks plain values against a schema.

    Raises:
        UserError: One line that names each wrong key, what was expected and what was found.
    """
    try:
        config = schema.model_validate(values)
    except ValidationError as error:
        lines = dict.fromkeys(_explain(item, values) for item in error.errors())
        raise UserError("; ".join(lines)) from error
    if isinstance(config, TrainConfig):
        _check_combinations(config)
        _check_file("resume", config.resume)
    if isinstance(config, FromCheckpointConfig | GradientsConfig):
        _check_file("checkpoint", config.checkpoint)
    return config


def _check_file(key: str, path: str | None) -> None:
    if path is not None and not Path(path).is_file():
        found = "a folder" if Path(path).is_dir() else "nothing"
        raise UserError(f"{key}: expected a file, found {found} at {path}")


def _check_combinations(config: TrainConfig) -> None:
    """Refuses options that would have no effect, or that contradict one another."""
    temperature = config.temperature
    if isinstance(temperature, _AnnealedTemperature) and temperature.minimum > temperature.initial:
        raise UserError(
            f"temperature.minimum: expected at most temperature.initial={temperature.initial}, "
            f"found {temperature.minimum}"
        )
    if isinstance(temperature, ExponentialTemperature) and (
        (temperature.rate is None) == (temperature.steps is None)
    ):
        raise UserError(
            "temperature.rate, temperature.steps: expected one of them and null for the other, "
            f"found {temperature.rate} and {temperature.steps}"
        )
    _check_pairing(config)
    if config.trainer.validate_every > config.trainer.max_epochs:
        raise UserError(
            "trainer.validate_every: expected at most trainer.max_epochs="
            f"{config.trainer.max_epochs}, found {config.trainer.validate_every}"
        )
    if config.callbacks.early_stopping is not None and config.data.validation == 0:
        raise UserError(
            "callbacks.early_stopping: expected null with data.validation=0, where there is "
            f"nothing to select by but the test images, found {config.callbacks.early_stopping}"
        )


def _check_pairing(config: TrainConfig) -> None:
    """Which estimators, temperatures and objectives go together."""
    name, objective = config.estimator.name, config.objective
    without = name in NO_TEMPERATURE
    if without != isinstance(config.temperature, NoTemperature):
        expected = "none, as it has no temperature" if without else "a schedule"
        raise UserError(
            f"temperature: expected {expected} with estimator={name}, "
            f"found {config.temperature.name}"
        )
    if (objective.kl == "relaxed") == (objective.prior_temperature is None):
        expected = "a number" if objective.kl == "relaxed" else "null"
        raise UserError(
            f"objective.prior_temperature: expected {expected} with objective.kl={objective.kl}, "
            f"found {objective.prior_temperature}"
        )
    if objective.kl == "relaxed" and name != "gumbel_softmax":
        raise UserError(
            "estimator: expected gumbel_softmax with objective.kl=relaxed, as densities of relaxed "
            f"samples are compared, found {name}"
        )
    if objective.name != "elbo" and objective.num_samples < 2:
        raise UserError(
            f"objective.num_samples: expected at least 2 with objective={objective.name}, "
            f"found {objective.num_samples}"
        )
    if objective.name == "iwae" and name in (*SCORE_FUNCTIONS, "exact"):
        raise UserError(
            "estimator: expected one whose gradient passes through the sample with objective=iwae, "
            f"as the bound has no cost for each sample, found {name}; objective=vimco has one"
        )
    plain = isinstance(config.estimator, Reinforce) and config.estimator.decay is None
    if objective.name == "vimco" and not plain:
        raise UserError(
            "estimator: expected reinforce with estimator.decay=null with objective=vimco, which "
            f"brings its own baseline, found {name}"
        )
    codes = config.model.num_categories**config.model.num_latents
    if name == "exact" and (codes > MAX_ENUMERATION or objective.num_samples > 1):
        raise UserError(
            f"estimator=exact: expected at most {MAX_ENUMERATION:,} codes and "
            f"objective.num_samples=1, found {config.model.num_categories}^"
            f"{config.model.num_latents} codes and {objective.num_samples}"
        )


def _explain(item: Any, values: Any) -> str:
    """One clause for one of pydantic's errors."""
    # The location also holds the names of union members, which are no keys of the input.
    path: list[str] = []
    node = values
    for part in item["loc"]:
        if (isinstance(node, dict) and part in node) or isinstance(node, list):
            node = node[part]
        elif item["type"] != "missing" or part != item["loc"][-1]:
            continue
        path.append(str(part))
    key = ".".join(path)
    context = item.get("ctx", {})
    match item["type"]:
        case "extra_forbidden":
            siblings = _siblings(path[:-1], path[-1], values)
            return f"{key}: no such key{nearest(path[-1], siblings)}"
        case "missing":
            return f"{key}: expected a value, found none"
        case "literal_error" | "union_tag_invalid":
            expected = str(context.get("expected") or context.get("expected_tags"))
            if item["type"] == "union_tag_invalid":
                key, node = f"{key}.name", item["input"].get("name")
            options = [option.strip("'") for option in expected.replace(" or ", ", ").split(", ")]
            return f"{key}: expected one of {expected}, found {node!r}{nearest(str(node), options)}"
    expected = item["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    return f"{key}: expected {expected}, found {item['input']!r}"


def _siblings(path: list[str], wrong: str, values: Any) -> list[str]:
    """The keys that stand beside a wrong one."""
    node = values
    for part in path:
        node = node[part]
    return sorted(set(node) - {wrong})


def nearest(word: str, options: list[str]) -> str:
    """'; did you mean …?' for the closest option, or nothing where none is close.

    Of dotted keys the last parts are compared too, so that train.lrr finds optimizer.lr.
    """

    def likeness(option: str) -> float:
        whole = SequenceMatcher(None, word, option).ratio()
        parts = (word.rpartition(".")[2], option.rpartition(".")[2])
        return max(whole, SequenceMatcher(None, *parts).ratio() if "." in word else 0.0)

    close = max(options, key=likeness, default=None)
    return f"; did you mean {close}?" if close is not None and likeness(close) >= 0.6 else ""
