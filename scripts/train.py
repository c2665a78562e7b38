"""Trains a model: `python scripts/train.py [group=option] [key=value]`."""

from dvae.cli import run
from dvae.schemas import TrainConfig


def main(config: TrainConfig) -> float | None:
    """Trains; returns the validation ELBO, by which sweeps compare runs."""
    from dvae.train import train

    return train(config).get("val/elbo")


if __name__ == "__main__":
    run("train", TrainConfig, main)
