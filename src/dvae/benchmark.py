"""Times training steps of several configurations in one run: a table and JSON.

Machines drift. Each case therefore lives in a process of its own, and the processes take turns: all
meet the same conditions, and the ratios within a round mean more than the times.
"""

import multiprocessing
import os
import platform
import pty
import resource
import shlex
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from dvae.cli import compose
from dvae.config import parse
from dvae.errors import UserError
from dvae.report import write_json
from dvae.schemas import BenchmarkConfig, TrainConfig

__all__ = ["Timing", "benchmark"]

_TRAIN = "train"
_KINDS = (_TRAIN, "floor", "loop", "tutorial", "likelihood", "likelihood_floor")
_PROFILED_OPERATORS = 25


@dataclass(frozen=True)
class Timing:
    """Time of one case.

    Attributes:
        case: What was timed.
        milliseconds: A step, the median over rounds.
        ratio: To the case that is compared with in the same round, the median over rounds.
        images_per_second: Training images, from the median.
        mebibytes: Peak memory: of the process, libraries included, or of the GPU.
    """

    case: str
    milliseconds: float
    ratio: float
    images_per_second: float
    mebibytes: float


@dataclass(frozen=True)
class _Case:
    """What a process times: a kind, and overrides of `scripts/train.py`."""

    name: str
    kind: str
    config: TrainConfig
    profile: bool


def benchmark(config: BenchmarkConfig) -> list[Timing]:
    """Times the cases in turns, prints a table, writes `benchmark.json`.

    Args:
        config: The configuration.

    Returns:
        One timing a case.

    Raises:
        UserError: If a case is wrong or fails.
    """
    output = Path(config.paths.output_dir)
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
        timings.append(Timing(case.name, 1e3 * seconds, ratio, speed, reports[i]["mebibytes"]))
    output.mkdir(parents=True, exist_ok=True)
    content = {
        "machine": reports[0]["machine"],
        "shared": [*config.shared, *config.extra],
        "relative_to": config.relative_to,
        "timings": [asdict(timing) for timing in timings],
        "seconds": rounds,
    }
    write_json(output / "benchmark.json", content)
    console = Console()
    console.print(_table(timings, config, reports[0]["machine"]))
    for case, report in zip(cases, reports, strict=True):
        if report["profile"]:
            console.print(f"\n{case.name}\n{report['profile']}", soft_wrap=True, highlight=False)
    console.print(f"written to {output / 'benchmark.json'}", soft_wrap=True, highlight=False)
    return timings


def _case(name: str, config: BenchmarkConfig, scratch: Path) -> _Case:
    kind, *overrides = shlex.split(name) or [""]
    if kind not in _KINDS:
        raise UserError(f"cases: expected each to begin with one of {_KINDS}, found {name!r}")
    own = [
        f"paths.data_dir={config.paths.data_dir}",
        f"paths.output_dir={scratch}",
        f"trainer.limit_train_batches={config.steps}",
        "trainer.limit_eval_batches=1",
        f"trainer.max_epochs={config.warmup + config.rounds + 1}",
    ]
    values = compose("train", [*config.shared, *config.extra, *overrides, *own])
    return _Case(name, kind, parse(TrainConfig, values), config.profile)


@contextmanager
def _workers(cases: list[_Case]) -> Iterator[list[Connection]]:
    """A process for each case; they end with the context."""
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    try:
        for case in cases:
            here, there = context.Pipe()
            # By its name, training takes it for one that a user looks at.
            process = context.Process(
                name="MainProcess", target=_work, args=(case, there), daemon=True
            )
            process.start()
            there.close()
            pipes.append(here)
            processes.append(process)
        yield pipes
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.join()


def _take_turns(pipes: list[Connection], config: BenchmarkConfig) -> list[list[float]]:
    """Seconds of a step, a row a round and a column a case."""
    rounds: list[list[float]] = []
    with Console().status("") as status:
        for number in range(config.warmup + config.rounds):
            counted = number >= config.warmup
            row = []
            for pipe, name in zip(pipes, config.cases, strict=True):
                round_name = f"round {number - config.warmup + 1}" if counted else "warm-up"
                status.update(f"{round_name} of {config.rounds}: {name}")
                row.append(_ask(pipe, "turn") / config.steps)
            if counted:
                rounds.append(row)
    return rounds


def _ask(pipe: Connection, request: str) -> Any:
    try:
        pipe.send(request)
        answer = pipe.recv()
    except (EOFError, OSError) as error:
        raise UserError("a process of the benchmark ended, perhaps for want of memory") from error
    if isinstance(answer, Exception):
        raise answer
    return answer


class _Turns:
    """The worker's side: waits for its turn, and answers with the time that it took."""

    def __init__(self, pipe: Connection, case: _Case) -> None:
        self._pipe = pipe
        self._case = case
        self._profiler: Any = None
        self._profile = ""
        self._seconds: float | None = None

    def begin(self) -> None:
        """Answers with the time of the last turn, and returns when it is this worker's again.

        Not before: what is done between two turns, such as a validation, would disturb the others.
        """
        import torch

        if self._seconds is not None:
            self._pipe.send(self._seconds)
        while self._pipe.recv() == "report":
            self._pipe.send(self._report())
        if self._case.profile:
            self._profiler = torch.profiler.profile()
            self._profiler.start()
        self._synchronize()
        self._start = time.perf_counter()

    def end(self) -> None:
        """Stops the clock."""
        self._synchronize()
        self._seconds = time.perf_counter() - self._start
        if self._profiler is not None:
            self._profiler.stop()
            averages = self._profiler.key_averages()
            order = f"self_{'cuda' if self._on_cuda() else 'cpu'}_time_total"
            self._profile = averages.table(sort_by=order, row_limit=_PROFILED_OPERATORS)

    def _on_cuda(self) -> bool:
        import torch

        return torch.cuda.is_available() and self._case.config.trainer.accelerator != "cpu"

    def _synchronize(self) -> None:
        if self._on_cuda():
            import torch

            torch.cuda.synchronize()

    def _report(self) -> dict[str, Any]:
        import torch

        device, peak = platform.machine(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        if self._on_cuda():
            device, peak = torch.cuda.get_device_name(), torch.cuda.max_memory_allocated() / 2**20
        machine = f"{device}, {torch.get_num_threads()} threads, torch {torch.__version__}"
        return {"mebibytes": peak, "machine": machine, "profile": self._profile}


def _work(case: _Case, pipe: Connection) -> None:
    """The life of a worker's process."""
    _give_terminal()
    turns = _Turns(pipe, case)
    try:
        if case.kind == _TRAIN:
            _train(case, turns)
        else:
            _repeat(case, turns)
    except EOFError:
        return
    except UserError as error:
        pipe.send(UserError(f"{case.name}: {error}"))
    except Exception as error:
        pipe.send(UserError(f"{case.name}: failed with {type(error).__name__}: {error}"))


def _give_terminal() -> None:
    """Shows the process a terminal that nobody looks at: bars are drawn as for a user."""
    reader, terminal = pty.openpty()
    os.dup2(terminal, 1)
    os.dup2(terminal, 2)

    def drain() -> None:
        while os.read(reader, 65536):
            pass

    threading.Thread(target=drain, daemon=True).start()


def _train(case: _Case, turns: _Turns) -> None:
    """Runs what `scripts/train.py` runs; a turn is the training part of an epoch."""
    import pytorch_lightning as pl

    from dvae.train import train

    class Clock(pl.Callback):
        def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
            turns.begin()

        def on_train_batch_end(
            self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, i: int
        ) -> None:
            if i + 1 == trainer.num_training_batches:
                turns.end()

    train(case.config, [Clock()])


def _repeat(case: _Case, turns: _Turns) -> None:
    """Repeats the step of a baseline."""
    import torch

    from dvae.baselines import BASELINES
    from dvae.devices import resolve_device

    accelerator = case.config.trainer.accelerator
    device = resolve_device({"gpu": "cuda"}.get(accelerator, accelerator))
    torch.set_flush_denormal(True)
    torch.manual_seed(case.config.seed)
    step = BASELINES[case.kind](case.config, device)
    steps = case.config.trainer.limit_train_batches
    while True:
        turns.begin()
        for _ in range(int(steps)):
            step()
        turns.end()


def _table(timings: list[Timing], config: BenchmarkConfig, machine: str) -> Table:
    table = Table(
        title=f"A step, median of {config.rounds} rounds: {machine}",
        caption=f"relative to {config.relative_to!r}; all with {' '.join([*config.shared, *config.extra]) or '—'}",
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("case")
    for name in ("ms", "relative", "images / s", "peak MiB"):
        table.add_column(name, justify="right")
    for timing in timings:
        table.add_row(
            timing.case,
            f"{timing.milliseconds:.2f}",
            f"{timing.ratio:.2f}",
            f"{timing.images_per_second:,.0f}",
            f"{timing.mebibytes:,.0f}",
        )
    return table
