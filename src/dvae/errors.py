"""Errors that end a run with a reason."""

import shlex
from difflib import SequenceMatcher
from importlib.metadata import requires
from pathlib import Path

__all__ = [
    "BusyError",
    "DivergedError",
    "OtherRunError",
    "PrunedError",
    "UserError",
    "install_command",
    "nearest",
]


class UserError(ValueError):
    """A mistake in the input: one line that names the thing, what was expected and what was found.

    The scripts print the line and exit with code 2. Unexpected errors keep their traceback.
    """


class DivergedError(UserError):
    """The loss or a metric is not finite; the same settings would diverge again."""


class BusyError(UserError):
    """A run in progress writes to the folder."""


class OtherRunError(UserError):
    """The folder belongs to a run with other settings, and must not be written to."""


class PrunedError(Exception):
    """A search ended the run early, because other runs were better at the same epoch."""


def nearest(word: str, options: list[str]) -> str:
    """'; did you mean …?' with the closest option; empty if none is close.

    The last parts of dotted keys are compared too: lr and train.lrr find optimizer.lr.
    """

    def likeness(option: str) -> float:
        whole = SequenceMatcher(None, word, option).ratio()
        parts = (word.rpartition(".")[2], option.rpartition(".")[2])
        last = SequenceMatcher(None, *parts).ratio()
        # A word without a dot must be closer to match the last part of a key.
        return max(whole, last if "." in word or last >= 0.75 else 0.0)

    close = max((option for option in options if option != word), key=likeness, default=None)
    return f"; did you mean {close}?" if close is not None and likeness(close) >= 0.6 else ""


def install_command(extra: str) -> str:
    """The command that installs what an extra needs: in a clone, or beside an installed package."""
    if not Path(__file__).with_name("configs").is_dir():
        return f'pip install -e ".[{extra}]"'
    needed = [item.split(";")[0].strip() for item in requires("dvae") or [] if f'"{extra}"' in item]
    return f"pip install {shlex.join(needed)}"
