"""Times training steps or whole runs of several cases: `python scripts/benchmark.py`."""

from dvae.benchmark.options import BenchmarkConfig
from dvae.commands.cli import run


def main(config: BenchmarkConfig) -> None:
    """Prints a table and writes JSON."""
    if config.targets:
        from dvae.benchmark.quality import time_to_quality

        time_to_quality(config)
    else:
        from dvae.benchmark.cases import benchmark

        benchmark(config)


if __name__ == "__main__":
    run("benchmark", BenchmarkConfig, main)
