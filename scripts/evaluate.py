"""Evaluates a checkpoint: `python scripts/evaluate.py checkpoint=PATH [key=value]`."""

from dvae.commands.cli import run
from dvae.tasks.options import EvaluateConfig


def main(config: EvaluateConfig) -> None:
    """Prints a table and writes JSON."""
    from dvae.commands.evaluate import evaluate

    evaluate(config)


if __name__ == "__main__":
    run("evaluate", EvaluateConfig, main)
