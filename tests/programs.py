"""Starts scripts in new processes, forked from one that has imported everything.

An import of torch and Lightning takes longer than most of what the tests let a script do.
"""

import atexit
import multiprocessing
import os
import runpy
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from dvae.commands.cli import ROOT

processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(
    ["dvae.commands.train", "dvae.tasks.vae.task", "torch.utils.tensorboard"]
)


class Program:
    """A script that runs as `python scripts/NAME ARGUMENTS` in a folder would.

    Args:
        script: The name of a file in scripts, or the path of another one.
        prepare: A function of a module that is called in the new process, before the script.
    """

    def __init__(
        self,
        script: str | Path,
        *arguments: object,
        folder: str | Path = ".",
        prepare: Callable[[], object] | None = None,
    ) -> None:
        self._texts = tempfile.TemporaryDirectory()
        command = [str(ROOT / "scripts" / script), *map(str, arguments)]
        where = (str(folder), self._texts.name, dict(os.environ))
        self._process = processes.Process(target=_run, args=(command, *where, prepare))
        self._process.start()

    @property
    def code(self) -> int | None:
        """The exit code: None while the program runs, -9 after it was killed."""
        return self._process.exitcode

    @property
    def texts(self) -> tuple[str, str]:
        """What it wrote to stdout and to stderr up to now."""
        out, err = (Path(self._texts.name, name) for name in ("out", "err"))
        return tuple(path.read_text() if path.exists() else "" for path in (out, err))

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal."""
        os.kill(self._process.pid, number)

    def finish(self, timeout: float = 300) -> tuple[int, str, str]:
        """Waits for its end; returns the exit code, stdout and stderr."""
        self._process.join(timeout)
        if self.code is None:
            self._process.kill()
            raise TimeoutError(f"ran longer than {timeout} s: {self.texts}")
        return (self.code, *self.texts)


def _run(
    command: list[str],
    folder: str,
    texts: str,
    environment: dict[str, str],
    prepare: Callable[[], object] | None,
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(Path(texts, name), os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    for stream in (sys.stdout, sys.stderr):
        # What precedes a kill can be read too.
        stream.reconfigure(line_buffering=True)
    if prepare is not None:
        prepare()
    sys.argv = command
    try:
        runpy.run_path(command[0], run_name="__main__")
    finally:
        # Processes of multiprocessing end without the functions that an interpreter calls.
        atexit._run_exitfuncs()
