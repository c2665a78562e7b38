"""Checks configurations against their schemas: one line for each mistake.

What Hydra composed and what a checkpoint carries are checked alike. Nothing here imports torch, so
that mistakes are answered at once.
"""

import re
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from dvae.commands.schemas import (
    NO_TEMPERATURE,
    AnnealedTemperature,
    AnySchema,
    ExponentialTemperature,
    NoTemperature,
    RunConfig,
)
from dvae.commands.script_schemas import BenchmarkConfig, FromCheckpointConfig, GradientsConfig
from dvae.errors import UserError, nearest
from dvae.tasks import find_task

__all__ = ["parse"]


def parse(schema: type[AnySchema], values: Any) -> AnySchema:
    """Checks plain values against a schema.

    Args:
        schema: The schema; `RunConfig` stands for that of the task that the values name.
        values: The values.

    Raises:
        UserError: One line that names each wrong key, what was expected and what was found.
    """
    if schema is RunConfig:
        schema = cast(type[AnySchema], find_task(values.get("task")).config)
    try:
        config = schema.model_validate(values)
    except ValidationError as error:
        lines = dict.fromkeys(_explain(item, values) for item in error.errors())
        raise UserError("; ".join(lines)) from error
    if isinstance(config, RunConfig):
        _check_run(config)
        find_task(config.task).check(config)
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


def _check_run(config: RunConfig) -> None:
    """Refuses what no task can do anything with."""
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
    without = config.estimator.name in NO_TEMPERATURE
    if without != isinstance(temperature, NoTemperature):
        name = config.estimator.name
        raise UserError(
            f"temperature: expected none with estimator={name}, which has no temperature, found "
            f"{temperature.name}; give temperature=none"
            if without
            else f"temperature: expected a schedule with estimator={name}, found none"
        )
    # Fused optimizers unscale gradients within their step: before it, their norm is another.
    fused = config.optimizer.name != "radam"
    if config.precision == 16 and config.trainer.gradient_clip and fused:
        raise UserError(
            f"trainer.gradient_clip: expected 0.0 with precision=16 and "
            f"optimizer={config.optimizer.name}, found {config.trainer.gradient_clip}; "
            "precision=bf16 and optimizer=radam can clip"
        )
    if config.trainer.validate_every > config.trainer.max_epochs:
        raise UserError(
            "trainer.validate_every: expected at most trainer.max_epochs="
            f"{config.trainer.max_epochs}, found {config.trainer.validate_every}"
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
    expected = re.sub("^(Input should be|Value error,|(String|List) should have) ", "", item["msg"])
    expected = expected.partition(" after validation")[0]
    return f"{key}: expected {expected}, found {item['input']!r}"


def _siblings(path: list[str], wrong: str, values: Any) -> list[str]:
    """The keys that stand beside a wrong one."""
    node = values
    for part in path:
        node = node[part]
    return sorted(set(node) - {wrong})
