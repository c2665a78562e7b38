"""Reads the files that a run writes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from dvae.errors import UserError

__all__ = ["flatten", "overrides_of", "read_json", "read_yaml"]


def overrides_of(folder: Path) -> list[str]:
    """The overrides that a run was started with.

    `environment.json` comes first: Hydra's own list may be of a later command that was refused.
    """
    started = read_json(folder / "environment.json")
    if "overrides" in started:
        return list(started["overrides"])
    return list(read_yaml(folder / ".hydra" / "overrides.yaml"))


def flatten(values: Any, prefix: str = "") -> dict[str, Any]:
    """Nested settings by their dotted keys."""
    if not isinstance(values, dict):
        return {prefix.removesuffix("."): values}
    return {
        k: v for key, value in values.items() for k, v in flatten(value, f"{prefix}{key}.").items()
    }


def read_json(path: Path) -> dict[str, Any]:
    """The content of a JSON file; an empty dict if the file does not exist.

    Raises:
        UserError: If the content is not a JSON object.
    """
    return _read(path, lambda text: dict(json.loads(text)))


def read_yaml(path: Path) -> Any:
    """The content of a YAML file; an empty dict if the file does not exist.

    Raises:
        UserError: If the content is not YAML.
    """
    return _read(path, lambda text: OmegaConf.to_container(OmegaConf.create(text)))


def _read(path: Path, parse: Callable[[str], Any]) -> Any:
    """The parsed content of a file; an empty dict if the file does not exist."""
    try:
        return parse(path.read_text("utf-8")) if path.is_file() else {}
    except (ValueError, TypeError, YAMLError, OmegaConfBaseException) as error:
        raise UserError(
            f"{path}: expected a file written by a run, found other content "
            f"({type(error).__name__})"
        ) from error
