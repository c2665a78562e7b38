"""Checks the configuration of a command before anything is built."""

from pathlib import Path
from typing import Any, cast

from dvae.errors import UserError
from dvae.options import AnyOptions, parse
from dvae.tasks import parse_run
from dvae.training.config import RunConfig

__all__ = ["check"]


def check(schema: type[AnyOptions], values: Any) -> AnyOptions:
    """Checks plain values, and that the files they name exist.

    Args:
        schema: The class of options to check against; `RunConfig` stands for the configuration of
            the task that the values name.
        values: The values.

    Raises:
        UserError: One line that names each wrong key, what was expected and what was found.
    """
    is_run = schema is RunConfig
    config = cast(AnyOptions, parse_run(values)) if is_run else parse(schema, values)
    for key in ("resume", "checkpoint"):
        path = getattr(config, key, None)
        if path is not None and not Path(path).is_file():
            found = "a folder" if Path(path).is_dir() else "nothing"
            raise UserError(f"{key}: expected a file, found {found} at {path}")
    return config
