"""The errors that end a run with a reason."""

__all__ = ["DivergedError", "OtherRunError", "PrunedError", "UserError"]


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
