"""Trains a model, resumes a run, or runs a sweep: `dvae train`."""

from dvae.commands.cli import run
from dvae.runs.folder import run_in_folder
from dvae.training.config import RunConfig

__all__ = ["main"]


def main() -> None:
    """Runs the command with the arguments of this process."""
    run("train", RunConfig, _train)


def _train(config: RunConfig) -> float | None:
    """Trains or resumes a run; returns the metric that searches maximize."""
    return run_in_folder(config, _train_here)


def _train_here(config: RunConfig) -> dict[str, float]:
    """Trains in a process of its own."""
    from dvae.commands.train import train
    from dvae.training.devices import tune_process

    tune_process()
    return train(config)


if __name__ == "__main__":
    main()
