"""The command `dvae`: `dvae NAME …` does the same as `python scripts/NAME.py …`."""

import sys
from importlib import import_module

from dvae import __version__
from dvae.errors import nearest

COMMANDS = {
    "train": "trains a model, resumes a run, or runs a sweep",
    "evaluate": "evaluates a checkpoint",
    "sample": "draws pictures from a checkpoint",
    "encode": "writes the codes of images",
    "schedule": "shows the temperature and other schedules of a run",
    "gradients": "compares gradient estimators with the exact gradient",
    "benchmark": "times training steps or whole runs",
    "summarize": "ranks the runs in a folder",
}
"""Name → what the command does; each is the module of that name in this package."""


def main() -> None:
    """Runs the command that the first argument names, with the other arguments."""
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help"):
        print(_help())
    elif name == "--version":
        print(f"dvae {__version__}")
    elif name not in COMMANDS:
        found = f"found {name!r}{nearest(name, list(COMMANDS))}"
        print(f"error: command: expected one of {', '.join(COMMANDS)}, {found}", file=sys.stderr)
        raise SystemExit(2)
    else:
        module = import_module(f"{__name__}.{name}")
        # Further processes of a run (trainer=ddp) start this file with the same arguments.
        sys.argv = [str(module.__file__), *arguments]
        module.main()


def _help() -> str:
    lines = [f"  {name:<10} {text}" for name, text in COMMANDS.items()]
    return "\n".join(
        [
            "Variational autoencoders with categorical latents.",
            "",
            "usage: dvae COMMAND [group=option] [key=value]",
            "",
            *lines,
            "",
            "dvae COMMAND --help lists what a command takes; dvae --version prints the version.",
        ]
    )
