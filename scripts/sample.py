"""Draws pictures from a checkpoint: `python scripts/sample.py checkpoint=PATH what=prior`."""

from dvae.commands.cli import run
from dvae.tasks.options import SampleConfig


def main(config: SampleConfig) -> None:
    """Writes a picture and its codes."""
    from dvae.commands.sample import sample

    sample(config)


if __name__ == "__main__":
    run("sample", SampleConfig, main)
