"""Trains a model: `python scripts/train.py [group=option] [key=value]`."""

from typing import Any

from dvae.cli import run
from dvae.runs import run_in_folder
from dvae.schemas import TrainConfig


def main(config: TrainConfig) -> float | None:
    """Trains, or goes on; returns the validation ELBO, by which sweeps compare runs."""

    def train(config: TrainConfig) -> dict[str, Any]:
        from dvae.train import train

        return train(config)

    return run_in_folder(config, train)


if __name__ == "__main__":
    run("train", TrainConfig, main)
