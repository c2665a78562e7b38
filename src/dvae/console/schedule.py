"""Shows the schedules of a run: `dvae schedule`."""

from dvae.commands.cli import run
from dvae.training.config import RunConfig

__all__ = ["main"]


def main() -> None:
    """Runs the command with the arguments of this process."""
    run("schedule", RunConfig, _schedule)


def _schedule(config: RunConfig) -> None:
    """Prints a table and writes a plot."""
    from dvae.commands.schedule import show

    show(config)


if __name__ == "__main__":
    main()
