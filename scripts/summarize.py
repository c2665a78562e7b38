"""Summarizes a folder of runs, finished or in progress: `python scripts/summarize.py PATH`."""

from dvae.console.summarize import main

if __name__ == "__main__":
    main()
