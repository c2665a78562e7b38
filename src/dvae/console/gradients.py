"""Compares gradient estimators with the exact gradient: `dvae gradients`."""

from dvae.commands.cli import run
from dvae.commands.options import GradientsConfig

__all__ = ["main"]


def main() -> None:
    """Runs the command with the arguments of this process."""
    run("gradients", GradientsConfig, _gradients)


def _gradients(config: GradientsConfig) -> None:
    """Prints a table; writes a CSV and a plot."""
    from dvae.commands.gradients import compare_gradients

    compare_gradients(config)


if __name__ == "__main__":
    main()
