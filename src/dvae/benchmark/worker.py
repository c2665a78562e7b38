"""A worker process of the benchmark: waits for its turns and times the steps of one case."""

import math
import os
import platform
import sys
import threading
import time
from dataclasses import dataclass
from functools import cached_property
from multiprocessing.connection import Connection
from typing import Any

from dvae.errors import UserError
from dvae.tasks import parse_run

__all__ = ["KINDS", "Case", "work"]

_TRAIN = "train"
_BASELINES = ("floor", "loop", "tutorial", "likelihood", "likelihood_floor")
_PARTS = ("activations", "batch", "codes", "noise", "optimizer", "rate", "scores")
KINDS = (_TRAIN, *_BASELINES, *_PARTS)
"""Kinds of cases: training as in `scripts/train.py`, and those of `dvae.benchmark.baselines` and
`dvae.benchmark.parts`."""
_PROFILED_OPERATORS = 25


@dataclass(frozen=True)
class Case:
    """What a process times: a kind, with the configuration of a run as plain values."""

    name: str
    kind: str
    values: dict[str, Any]
    profile: bool

    @cached_property
    def config(self) -> Any:
        """The configuration; as an object, that of some tasks could not be sent to a process."""
        return parse_run(self.values)


class _Turns:
    """The worker's end of the pipe: waits for its turn and sends the time that it took."""

    def __init__(self, pipe: Connection, case: Case) -> None:
        self._pipe = pipe
        self._case = case
        self._profiler: Any = None
        self._profile = ""
        self._seconds: float | None = None

    def begin(self) -> None:
        """Sends the time of the last turn, and waits for the next one.

        The time is sent only now, so that work between two turns, such as a validation, does not
        disturb the other processes.
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
        from dvae.training.devices import has_gpu

        return has_gpu() and self._case.config.trainer.accelerator != "cpu"

    def _synchronize(self) -> None:
        if self._on_cuda():
            import torch

            torch.cuda.synchronize()

    def _report(self) -> dict[str, Any]:
        import torch

        device, peak = platform.machine(), _peak_mebibytes()
        if self._on_cuda():
            device, peak = torch.cuda.get_device_name(), torch.cuda.max_memory_allocated() / 2**20
        machine = f"{device}, {torch.get_num_threads()} threads, torch {torch.__version__}"
        return {"mebibytes": peak, "machine": machine, "profile": self._profile}


def work(case: Case, pipe: Connection) -> None:
    """The main function of a worker process."""
    _redirect_output()
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


def _redirect_output() -> None:
    """Redirects output to a hidden terminal, so that progress bars cost the same as for a user.

    Without pseudo-terminals, as on Windows, the output is dropped.
    """
    try:
        import pty

        reader, terminal = pty.openpty()
    except ImportError:
        reader, terminal = None, os.open(os.devnull, os.O_WRONLY)
    os.dup2(terminal, 1)
    os.dup2(terminal, 2)
    if reader is not None:
        threading.Thread(target=_drain, args=(reader,), daemon=True).start()


def _drain(reader: int) -> None:
    while os.read(reader, 65536):
        pass


def _peak_mebibytes() -> float:
    """Peak memory of this process; NaN on Windows."""
    try:
        import resource
    except ImportError:
        return math.nan
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def _train(case: Case, turns: _Turns) -> None:
    """Trains as `scripts/train.py` does; a turn is the training part of an epoch."""
    import pytorch_lightning as pl

    from dvae.commands.train import train
    from dvae.training.devices import tune_process

    class Clock(pl.Callback):
        def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
            turns.begin()

        def on_train_batch_end(
            self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, i: int
        ) -> None:
            if i + 1 == trainer.num_training_batches:
                turns.end()

    tune_process()
    train(case.config, [Clock()])


def _repeat(case: Case, turns: _Turns) -> None:
    """Repeats the step of a baseline, or a part of a step."""
    import torch

    from dvae.benchmark.baselines import BASELINES
    from dvae.benchmark.parts import PARTS
    from dvae.training.devices import resolve_device

    device = resolve_device(case.config.trainer.accelerator, "trainer.accelerator")
    torch.set_flush_denormal(True)
    torch.manual_seed(case.config.seed)
    step = (BASELINES | PARTS)[case.kind](case.config, device)
    steps = case.config.trainer.limit_train_batches
    while True:
        turns.begin()
        for _ in range(int(steps)):
            step()
        turns.end()
