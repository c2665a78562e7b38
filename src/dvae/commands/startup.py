"""What a command needs before it starts, with some interpreters and terminals."""

import sys
from argparse import Action, ArgumentParser
from io import TextIOWrapper
from typing import Any

__all__ = ["prepare"]

_CHECK_HELP: Any = getattr(ArgumentParser, "_check_help", None)
"""Python 3.14 checks the help of each argument with this method."""


def prepare() -> None:
    """Lets Hydra start with Python 3.14, and lets terminals print ? for characters they lack."""
    parser: Any = ArgumentParser
    if _CHECK_HELP is not None:
        parser._check_help = _check_help
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")


def _check_help(parser: ArgumentParser, action: Action) -> None:
    """Checks texts only; the help of Hydra 1.3's `--shell-completion` is another object."""
    if isinstance(action.help, str):
        _CHECK_HELP(parser, action)
