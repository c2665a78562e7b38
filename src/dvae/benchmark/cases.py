"""Times training steps of several configurations: a table and JSON.

The speed of a machine drifts. Each case therefore runs in its own process, and the processes take
turns. Within a round all cases meet similar conditions, so ratios are more reliable than times.
"""

import multiprocessing
import shlex
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from dvae.benchmark.options import BenchmarkConfig
from dvae.benchmark.worker import KINDS, Case, work
from dvae.commands.checking import check
from dvae.commands.cli import compose
from dvae.errors import UserError
from dvae.files import check_writable, write_json
from dvae.tasks.vae.config import VAEConfig
from dvae.training.config import RunConfig
from dvae.training.terminal import status

__all__ = ["Timing", "benchmark"]

_PATIENCE = 30.0
"""Seconds in which a worker ends by itself."""


@dataclass(frozen=True)
class Timing:
    """Time of one case.

    Attributes:
        case: What was timed.
        milliseconds: Time of a step, median over rounds.
        ratio: Time relative to the reference case in the same round, median over rounds.
        images_per_second: Batch size divided by the median time.
        mebibytes: Peak memory of the process, libraries included; on a GPU, of the GPU.
        anonymous: Memory of the process at the end that belongs to no file, in MiB. Images that are
            mapped into memory do not count.
    """

    case: str
    milliseconds: float
    ratio: float
    images_per_second: float
    mebibytes: float
    anonymous: float


def benchmark(config: BenchmarkConfig) -> list[Timing]:
    """Times the cases in turns, prints a table and writes `benchmark.json`.

    Args:
        config: The configuration.

    Returns:
        One timing for each case.

    Raises:
        UserError: If a case is wrong or fails.
    """
    output = Path(config.paths.output_dir) / "benchmark.json"
    check_writable(output)
    with tempfile.TemporaryDirectory() as scratch:
        cases = [_case(name, config, Path(scratch) / str(i)) for i, name in enumerate(config.cases)]
        with _workers(cases) as pipes:
            rounds = _take_turns(pipes, config)
            reports = [_ask(pipe, "report") for pipe in pipes]
    reference = config.cases.index(config.relative_to)
    timings = []
    for i, case in enumerate(cases):
        seconds = median(row[i] for row in rounds)
        ratio = median(row[i] / row[reference] for row in rounds)
        speed = case.config.data.batch_size / seconds
        memory = (reports[i]["mebibytes"], reports[i]["anonymous"])
        timings.append(Timing(case.name, 1e3 * seconds, ratio, speed, *memory))
    content = {
        "machine": reports[0]["machine"],
        "shared": [*config.shared, *config.extra],
        "relative_to": config.relative_to,
        "timings": [asdict(timing) for timing in timings],
        "seconds": rounds,
    }
    console = Console(markup=False)
    console.print(_table(timings, config, reports[0]["machine"]))
    for case, report in zip(cases, reports, strict=True):
        if report["profile"]:
            console.print(f"\n{case.name}\n{report['profile']}", soft_wrap=True, highlight=False)
    write_json(output, content)
    console.print(f"written to {output}", soft_wrap=True, highlight=False)
    return timings


def _case(name: str, config: BenchmarkConfig, scratch: Path) -> Case:
    kind, *overrides = shlex.split(name) or [""]
    if kind not in KINDS:
        raise UserError(f"cases: expected each to begin with one of {KINDS}, found {name!r}")
    own = [
        f"paths.data_dir={config.paths.data_dir}",
        f"paths.output_dir={scratch}",
        f"trainer.limit_train_batches={config.steps}",
        "trainer.limit_eval_batches=1",
        f"trainer.max_epochs={config.warmup + config.rounds + 1}",
    ]
    values = compose("train", [*config.shared, *config.extra, *overrides, *own])
    # `train` works with any task, the baselines only with a VAE.
    schema = RunConfig if kind == "train" else VAEConfig
    return Case(name, kind, check(schema, values).model_dump(), config.profile)


@contextmanager
def _workers(cases: list[Case]) -> Iterator[list[Connection]]:
    """Starts a process for each case; at the end, all of them end."""
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    try:
        for case in cases:
            here, there = context.Pipe()
            # Not as a daemon, which could not start the processes that prepare a folder of images.
            process = context.Process(target=work, args=(case, there))
            process.start()
            there.close()
            pipes.append(here)
            processes.append(process)
        yield pipes
    finally:
        # A worker that finds its pipe closed ends and cleans up; one in the middle of a turn is
        # killed.
        for pipe in pipes:
            pipe.close()
        for process in processes:
            process.join(_PATIENCE)
            process.kill()
            process.join()


def _take_turns(pipes: list[Connection], config: BenchmarkConfig) -> list[list[float]]:
    """Seconds of a step: a row for each round, a column for each case."""
    rounds: list[list[float]] = []
    with status() as show:
        for number in range(config.warmup + config.rounds):
            counted = number >= config.warmup
            row = []
            for pipe, name in zip(pipes, config.cases, strict=True):
                round_name = f"round {number - config.warmup + 1}" if counted else "warm-up"
                show(f"{round_name} of {config.rounds}: {name}")
                row.append(_ask(pipe, "turn") / config.steps)
            if counted:
                rounds.append(row)
    return rounds


def _ask(pipe: Connection, request: str) -> Any:
    try:
        pipe.send(request)
        answer = pipe.recv()
    except (EOFError, OSError) as error:
        raise UserError(
            "benchmark: expected an answer from each process, found one that had ended; "
            "it may have run out of memory"
        ) from error
    if isinstance(answer, Exception):
        raise answer
    return answer


def _table(timings: list[Timing], config: BenchmarkConfig, machine: str) -> Table:
    overrides = " ".join([*config.shared, *config.extra])
    table = Table(
        title=f"A step, median of {config.rounds} rounds: {machine}",
        caption=f"relative to {config.relative_to!r}; all with {overrides or 'nothing'}",
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("case", overflow="fold")
    for name in ("ms", "relative", "images / s", "peak MiB", "anonymous MiB"):
        table.add_column(name, justify="right")
    for timing in timings:
        table.add_row(
            timing.case,
            f"{timing.milliseconds:.2f}",
            f"{timing.ratio:.2f}",
            f"{timing.images_per_second:,.0f}",
            f"{timing.mebibytes:,.0f}",
            f"{timing.anonymous:,.0f}",
        )
    return table
