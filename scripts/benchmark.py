"""Times training steps or whole runs of several cases: `python scripts/benchmark.py`."""

from dvae.console.benchmark import main

if __name__ == "__main__":
    main()
