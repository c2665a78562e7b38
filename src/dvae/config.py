"""Checks configurations against their schemas: one line for each mistake.

What Hydra composed and what a checkpoint carries are checked alike. Nothing here imports torch, so
that mistakes are answered at once.
"""

from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dvae.errors import UserError
from dvae.schemas import (
    MAX_ENUMERATION,
    NO_TEMPERATURE,
    SCORE_FUNCTIONS,
    AnnealedTemperature,
    AnySchema,
    BenchmarkConfig,
    ExponentialTemperature,
    FromCheckpointConfig,
    GradientsConfig,
    NoTemperature,
    Reinforce,
    TrainConfig,
)

__all__ = ["nearest", "parse"]


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
    if isinstance(config, BenchmarkConfig) and config.relative_to not in config.cases:
        raise UserError(
            f"relative_to: expected one of the cases {config.cases}, found {config.relative_to!r}"
        )
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
    if isinstance(temperature, AnnealedTemperature) and temperature.minimum > temperature.initial:
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
