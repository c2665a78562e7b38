"""The error that a user can mend."""

__all__ = ["UserError"]


class UserError(ValueError):
    """A mistake in the input: one line that names the thing, what was expected and what was found.

    The scripts print the line and exit with code 2; anything else keeps its traceback.
    """
