"""The errors that end a run with a reason."""

from difflib import SequenceMatcher

__all__ = ["DivergedError", "OtherRunError", "PrunedError", "UserError", "nearest"]


class UserError(ValueError):
    """A mistake in the input: one line that names the thing, what was expected and what was found.

    The scripts print the line and exit with code 2; anything else keeps its traceback.
    """


class DivergedError(UserError):
    """Training has left the finite numbers: the same settings would do so again."""


class OtherRunError(UserError):
    """The folder belongs to a run with other settings, and must not be written to."""


class PrunedError(Exception):
    """A search has given the run up, because others were better at the same epoch."""


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
