"""Trains a model: `python scripts/train.py [group=option] [key=value]`."""

from typing import Any

from dvae.commands.cli import run
from dvae.runs.folder import run_in_folder
from dvae.training.config import RunConfig


def main(config: RunConfig) -> float | None:
    """Trains or resumes a run; returns the metric that searches maximize."""

    def train(config: RunConfig) -> dict[str, Any]:
        from dvae.commands.train import train

        return train(config)

    return run_in_folder(config, train)


if __name__ == "__main__":
    run("train", RunConfig, main)
