"""Trains a model: `python scripts/train.py [group=option] [key=value]`."""

from dvae.console.train import main

if __name__ == "__main__":
    main()
