"""Evaluates a checkpoint: `dvae evaluate`."""

from dvae.commands.cli import run
from dvae.tasks.options import EvaluateConfig

__all__ = ["main"]


def main() -> None:
    """Runs the command with the arguments of this process."""
    run("evaluate", EvaluateConfig, _evaluate)


def _evaluate(config: EvaluateConfig) -> None:
    """Prints a table and writes JSON."""
    from dvae.commands.evaluate import evaluate
    from dvae.training.devices import tune_process

    tune_process()
    evaluate(config)


if __name__ == "__main__":
    main()
