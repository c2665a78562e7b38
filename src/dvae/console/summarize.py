"""Ranks the runs in a folder, finished or in progress: `dvae summarize PATH`."""

import argparse
import sys
from pathlib import Path
from typing import NoReturn

from dvae.errors import UserError
from dvae.runs.program import program
from dvae.runs.summary import summarize

__all__ = ["main"]


def main() -> None:
    """Writes sweep.csv and sweep.png into the folder and prints a ranked table."""
    parser = argparse.ArgumentParser(prog=" ".join(program("summarize")), description=__doc__)
    parser.add_argument("path", type=Path, help="a folder with runs in it, at any depth")
    parser.add_argument(
        "--best-of",
        metavar="KEY",
        help="show the best setting for each value of this key, such as estimator",
    )
    arguments = parser.parse_args()
    try:
        summarize(arguments.path, arguments.best_of)
    except UserError as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"{error.filename}: expected to write it, found: {error.strerror}")


def _fail(line: str) -> NoReturn:
    print(f"error: {line}", file=sys.stderr)
    raise SystemExit(2)


if __name__ == "__main__":
    main()
