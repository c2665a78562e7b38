"""Words about work in progress: redrawn in place on a terminal, otherwise line by line."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from rich import progress
from rich.console import Console
from rich.markup import escape

__all__ = ["has_terminal", "say", "status", "track"]

_SHORT = 64
"""Fewer steps than these need no bar."""


def has_terminal() -> bool:
    """Whether output goes to a terminal that can redraw a line, not to a file, pipe or notebook."""
    console = Console()
    # Variables such as FORCE_COLOR make rich take any output for a terminal.
    return console.is_interactive and console.file.isatty()


def say(line: str) -> None:
    """Prints a line at once. A reader that has closed the pipe, such as `head`, ends no run."""
    try:
        print(line, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def status() -> Iterator[Callable[[str], None]]:
    """Yields a function that shows what a command is doing now."""
    if has_terminal():
        with Console().status("") as shown:
            yield lambda line: shown.update(escape(line))
    else:
        yield say


def track(steps: Sequence[int]) -> Iterable[int]:
    """The same steps, with a bar on a terminal if they are many."""
    if len(steps) < _SHORT or not has_terminal():
        return steps
    return progress.track(steps, "latents", transient=True)
