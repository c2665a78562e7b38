"""How the program was started, for the commands that it prints."""

import shlex
import sys
from pathlib import Path

__all__ = ["own_command", "program"]

_CONSOLE = Path(__file__).parents[1] / "console"


def program(name: str) -> list[str]:
    """The words that start a command: those of this process, for another command.

    Args:
        name: Name of the command.

    Returns:
        `python scripts/NAME.py` if a script of the clone was started, otherwise `dvae NAME`.
    """
    script = Path(sys.argv[0])
    if script.parent.name == "scripts" and script.suffix == ".py":
        return ["python", str(script.with_name(f"{name}.py"))]
    return ["dvae", name]


def own_command() -> str:
    """The command line of this process."""
    script = Path(sys.argv[0])
    by_name = script.parent == _CONSOLE
    words = ["dvae", script.stem] if by_name else [Path(sys.executable).name, sys.argv[0]]
    return shlex.join([*words, *sys.argv[1:]])
