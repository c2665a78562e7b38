"""Shows the schedules of a run: `python scripts/schedule.py temperature=cosine [key=value]`."""

from dvae.commands.cli import run
from dvae.training.config import RunConfig


def main(config: RunConfig) -> None:
    """Prints a table and writes a plot."""
    from dvae.commands.schedule import show

    show(config)


if __name__ == "__main__":
    run("schedule", RunConfig, main)
