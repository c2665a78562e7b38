"""Draws pictures from a checkpoint: `python scripts/sample.py checkpoint=PATH what=prior`."""

from dvae.console.sample import main

if __name__ == "__main__":
    main()
