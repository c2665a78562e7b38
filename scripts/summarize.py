"""Summarizes a folder of runs, finished or in progress: `python scripts/summarize.py PATH`."""

import argparse
import sys
from pathlib import Path

from dvae.errors import UserError
from dvae.runs.summary import summarize


def main() -> None:
    """Writes sweep.csv and sweep.png into the folder and prints a ranked table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path, help="a folder with runs in it, at any depth")
    try:
        summarize(parser.parse_args().path)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from error


if __name__ == "__main__":
    main()
