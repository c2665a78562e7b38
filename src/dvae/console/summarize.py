"""Ranks the runs in a folder, finished or in progress: `dvae summarize PATH`."""

import argparse
import sys
from pathlib import Path

from dvae.errors import UserError
from dvae.runs.program import program
from dvae.runs.summary import summarize

__all__ = ["main"]


def main() -> None:
    """Writes sweep.csv and sweep.png into the folder and prints a ranked table."""
    parser = argparse.ArgumentParser(prog=" ".join(program("summarize")), description=__doc__)
    parser.add_argument("path", type=Path, help="a folder with runs in it, at any depth")
    try:
        summarize(parser.parse_args().path)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from error


if __name__ == "__main__":
    main()
