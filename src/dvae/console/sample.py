"""Draws pictures from a checkpoint: `dvae sample`."""

from dvae.commands.cli import run
from dvae.tasks.options import SampleConfig

__all__ = ["main"]


def main() -> None:
    """Runs the command with the arguments of this process."""
    run("sample", SampleConfig, _sample)


def _sample(config: SampleConfig) -> None:
    """Writes a picture and its codes."""
    from dvae.commands.sample import sample

    sample(config)


if __name__ == "__main__":
    main()
