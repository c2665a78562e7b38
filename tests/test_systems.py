"""Other systems and interpreters, as far as this one can simulate them.

The programs run in a process in which the modules of `dvae` see the standard library of another
system; torch and the other libraries see this one.
"""

import json
import math
import os
import re
import subprocess
import sys

import pytest

from dvae.benchmark import worker
from dvae.commands.cli import ROOT

WINDOWS = """
import builtins, ctypes, errno, fcntl, json, os, runpy, signal, sys, types

def view(module, hidden=(), **others):
    class View(types.ModuleType):
        def __getattr__(self, name):
            if name in hidden:
                raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")
            return getattr(module, name)

    seen = View(module.__name__)
    seen.__dict__.update(others)
    return seen

def open_file(path, *arguments, **options):
    if os.path.isdir(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))
    return os.open(path, *arguments, **options)

def kill(pid, number):
    raise AssertionError("os.kill ends a process on Windows")

def load(name):
    if name is None:
        raise TypeError("argument of type 'NoneType' is not iterable")
    return ctypes.CDLL(name)

def locking(file, mode, count):
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise PermissionError(errno.EACCES, "Permission denied") from error

msvcrt = types.ModuleType("msvcrt")
msvcrt.LK_NBLCK, msvcrt.locking = 2, locking
hidden = ("fork", "geteuid", "getuid", "mkfifo", "O_DIRECTORY", "sched_getaffinity")
signals = ("SIGALRM", "SIGHUP", "SIGKILL", "SIGUSR1", "SIGUSR2")
views = {
    "ctypes": view(ctypes, CDLL=load),
    "msvcrt": msvcrt,
    "os": view(os, hidden, name="nt", open=open_file, kill=kill),
    "signal": view(signal, signals),
    "sys": view(sys, platform="win32"),
}
missing = {"fcntl", "grp", "pty", "pwd", "resource", "termios", "tty"}
plain = builtins.__import__

def see(name, globals=None, locals=None, fromlist=(), level=0):
    if (globals or {}).get("__name__", "").partition(".")[0] in ("dvae", "hydra_plugins"):
        if name in missing:
            raise ModuleNotFoundError(f"No module named {name!r}")
        if name in views:
            return views[name]
    return plain(name, globals, locals, fromlist, level)

builtins.__import__ = see
"""

PYTHON_3_14 = """
import argparse

# From Python 3.14's argparse.
class Container(argparse._ActionsContainer):
    def _check_help(self, action):
        if action.help and hasattr(self, "_get_formatter"):
            formatter = self._get_formatter()
            try:
                formatter._expand_help(action)
            except (ValueError, TypeError, KeyError) as exc:
                raise ValueError("badly formed help string") from exc

def add_argument(self, *arguments, **options):
    action = add_argument.before(self, *arguments, **options)
    self._check_help(action)
    return action

if not hasattr(argparse._ActionsContainer, "_check_help"):
    add_argument.before = argparse._ActionsContainer.add_argument
    argparse._ActionsContainer._check_help = Container._check_help
    argparse._ActionsContainer.add_argument = add_argument
"""

RUN = """
import runpy, sys
for arguments in {commands}:
    sys.argv = arguments
    try:
        runpy.run_path(arguments[0], run_name="__main__")
    except SystemExit as error:
        print("exit code", error.code, file=sys.stderr)
"""

SMALL = ["debug=fast", "model.hidden=[8]", "model.num_latents=2", "trainer.accelerator=cpu"]


def _run(prelude, commands, **environment):
    scripts = [[str(ROOT / "scripts" / name), *rest] for name, *rest in commands]
    return subprocess.run(
        [sys.executable, "-c", prelude + RUN.format(commands=json.dumps(scripts))],
        capture_output=True,
        encoding="utf-8",
        timeout=300,
        env={**os.environ, **environment},
    )


def test_training_runs_on_windows(tmp_path, data_dir):
    """And with an encoding that lacks most characters."""
    folder = tmp_path / "run"
    own = [f"hydra.run.dir={folder}", f"paths.data_dir={data_dir}", *SMALL]
    commands = [
        ["train.py", *own],
        ["train.py", *own, "resume=last"],
        ["summarize.py", str(tmp_path)],
    ]
    other = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    result = _run(WINDOWS, commands, **other)
    assert not result.stderr
    assert "Metrics of the best checkpoint" in result.stdout
    assert "already finished" in result.stdout
    assert json.loads((folder / "status.json").read_text())["state"] == "finished"
    assert (tmp_path / "sweep.csv").is_file()
    names = [path.name for path in tmp_path.rglob("*")]
    assert "last.ckpt" in names
    assert not [name for name in names if re.search(r'[<>:"\\|?*]|[. ]$', name)]


def test_two_runs_do_not_share_a_folder_on_windows(tmp_path):
    lock = f"""
from pathlib import Path
from dvae.files import lock_folder, is_locked
folder = Path({str(tmp_path)!r})
assert not is_locked(folder)
with lock_folder(folder):
    assert is_locked(folder)
assert not is_locked(folder)
"""
    result = subprocess.run([sys.executable, "-c", WINDOWS + lock], capture_output=True, text=True)
    assert not result.stderr


def test_the_simulated_system_lacks_what_windows_lacks():
    """Control: a module of `dvae` cannot import what Windows does not have."""
    for line in ("import fcntl", "import os; os.fork", "import signal; signal.SIGUSR1"):
        code = f"{WINDOWS}\nexec({line!r}, {{'__name__': 'dvae.x', '__builtins__': builtins}})"
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert result.stderr.splitlines()[-1].startswith(("ModuleNotFoundError", "AttributeError"))


def test_python_3_14_starts():
    result = _run(PYTHON_3_14, [["train.py", "--help"], ["train.py", "optimizer.lrr=1"]])
    assert "estimator: carms, exact, gapped_st" in result.stdout
    assert result.stderr.splitlines()[1].startswith("error: optimizer.lrr: no such key")


def test_the_benchmark_runs_without_terminals_and_resources(monkeypatch):
    assert 50 < worker._peak_mebibytes() < 10_000
    monkeypatch.setitem(sys.modules, "resource", None)
    assert math.isnan(worker._peak_mebibytes())
    code = """
import sys
sys.modules["pty"] = None
from dvae.benchmark.worker import _redirect_output
_redirect_output()
print("x" * 100_000)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_peak_memory_is_in_mebibytes(monkeypatch, platform):
    """Linux reports KiB, macOS bytes."""
    import resource

    monkeypatch.setattr(worker.sys, "platform", platform)
    unit = {"linux": 1024, "darwin": 1024**2}[platform]
    peak = resource.struct_rusage([0.0, 0.0, 7 * unit] + [0] * 13)
    monkeypatch.setattr(resource, "getrusage", lambda who: peak)
    assert worker._peak_mebibytes() == 7
