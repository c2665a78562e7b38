"""Evaluates a checkpoint: `python scripts/evaluate.py checkpoint=PATH [key=value]`."""

from dvae.console.evaluate import main

if __name__ == "__main__":
    main()
