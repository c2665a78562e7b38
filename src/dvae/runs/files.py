"""Files that a run has written, read back."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from dvae.errors import UserError

__all__ = ["overrides_of", "read_json", "read_yaml"]


def overrides_of(folder: Path) -> list[str]:
    """What a run was started with: Hydra also keeps what it was refused to go on with."""
    started = read_json(folder / "environment.json")
    if "overrides" in started:
        return list(started["overrides"])
    return list(read_yaml(folder / ".hydra" / "overrides.yaml"))


def read_json(path: Path) -> dict[str, Any]:
    """What a JSON file holds; nothing where there is none.

    Raises:
        UserError: If it holds anything else.
    """
    return _read(path, lambda text: dict(json.loads(text)))


def read_yaml(path: Path) -> Any:
    """What a YAML file holds; nothing where there is none.

    Raises:
        UserError: If it holds anything else.
    """
    return _read(path, lambda text: OmegaConf.to_container(OmegaConf.create(text)))


def _read(path: Path, parse: Callable[[str], Any]) -> Any:
    """What a file of a run holds; nothing where there is none."""
    try:
        return parse(path.read_text()) if path.is_file() else {}
    except (ValueError, TypeError, YAMLError, OmegaConfBaseException) as error:
        raise UserError(
            f"{path}: expected the file that a run has written, found another "
            f"({type(error).__name__})"
        ) from error
