"""Draws pictures from a checkpoint: `python scripts/sample.py checkpoint=PATH what=prior`."""

from dvae.commands.cli import run
from dvae.commands.script_schemas import SampleConfig


def main(config: SampleConfig) -> None:
    """Draws."""
    from dvae.commands.sample import sample

    sample(config)


if __name__ == "__main__":
    run("sample", SampleConfig, main)
