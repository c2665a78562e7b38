"""Times training steps or whole runs of several cases: `dvae benchmark`."""

from dvae.benchmark.options import BenchmarkConfig
from dvae.commands.cli import run

__all__ = ["main"]


def main() -> None:
    """Runs the command with the arguments of this process."""
    run("benchmark", BenchmarkConfig, _benchmark)


def _benchmark(config: BenchmarkConfig) -> None:
    """Prints a table and writes JSON."""
    if config.targets:
        from dvae.benchmark.quality import time_to_quality

        time_to_quality(config)
    else:
        from dvae.benchmark.cases import benchmark

        benchmark(config)


if __name__ == "__main__":
    main()
