"""Compares gradient estimators with the exact gradient: `python scripts/gradients.py`."""

from dvae.commands.cli import run
from dvae.commands.options import GradientsConfig


def main(config: GradientsConfig) -> None:
    """Prints a table; writes a CSV and a plot."""
    from dvae.commands.gradients import compare_gradients

    compare_gradients(config)


if __name__ == "__main__":
    run("gradients", GradientsConfig, main)
