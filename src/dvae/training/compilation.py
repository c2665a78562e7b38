"""What torch needs to compile: a compiler, Python's headers, and a folder for compiled code."""

import contextlib
import getpass
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from dvae.errors import UserError

__all__ = ["compiler_errors", "obstacle", "prepare_compilation"]

_C = ("C", "CC", ("gcc", "clang", "cc"))
_CPP = ("C++", "CXX", ("g++", "clang++", "c++", "cl"))
_CACHE = "TORCHINDUCTOR_CACHE_DIR"


def prepare_compilation(device: torch.device) -> None:
    """Points torch to a compiler and a folder that it can use.

    Args:
        device: The device of the run.

    Raises:
        UserError: If the machine lacks one of them.
    """
    on_gpu = device.type == "cuda"
    if found := obstacle(on_gpu):
        raise UserError(f"compile: {found}, or give compile=false")
    os.environ[_CACHE] = str(_cache_folder())
    if not on_gpu and "CXX" not in os.environ:
        import torch._inductor.config

        # Left alone, torch takes no compiler but g++.
        torch._inductor.config.cpp.cxx = (None, _compiler(*_CPP[1:]) or "")


@contextmanager
def compiler_errors() -> Iterator[None]:
    """Turns what the C++ compiler complains about, such as a full disk, into one line.

    Raises:
        UserError: If the compiler failed; any other error keeps its traceback.
    """
    try:
        yield
    except RuntimeError as error:
        output = getattr(getattr(error, "inner_exception", None), "output", None)
        if not isinstance(output, str):
            raise
        lines = [line for line in output.splitlines() if "error" in line]
        raise UserError(
            f"compile: expected the C++ compiler to succeed, found: {(lines or [output])[0]}; give "
            "compile=false to train without it"
        ) from error


def obstacle(on_gpu: bool) -> str:
    """What keeps torch from compiling on this machine, and what to do; empty if nothing does.

    Args:
        on_gpu: Whether the run uses CUDA.
    """
    if on_gpu and importlib.util.find_spec("triton") is None:
        return "expected Triton, found none; pip install triton"
    kind, variable, names = _C if on_gpu else _CPP
    compiler, advice = _compiler(variable, names), f"install {names[0]} or {names[1]}"
    if compiler is None:
        given = os.environ.get(variable)
        found = f"{variable}={given}, which does not exist" if given else "none"
        return f"expected a {kind} compiler, found {found}; {advice}, or name one in {variable}"
    if complaint := _complaint(compiler, kind):
        return (
            f"expected a {kind} compiler that finds the headers of Python, found {compiler} with "
            f"{complaint!r}; {advice} and python3-dev"
        )
    if _cache_folder() is None:
        return (
            "expected a folder that compiled code can be written to and run from, found none; "
            f"name one in {_CACHE}"
        )
    return ""


def _compiler(variable: str, names: tuple[str, ...]) -> str | None:
    """The compiler that a variable names, otherwise the first that is installed."""
    if given := os.environ.get(variable):
        return given if shutil.which(shlex.split(given)[0]) else None
    return next((name for name in names if shutil.which(name)), None)


def _complaint(compiler: str, kind: str) -> str:
    """The first line of what a compiler says against a file that needs Python's headers."""
    if sys.platform == "win32":
        return ""
    library = "#include <vector>\n" if kind == "C++" else ""
    command = [*shlex.split(compiler), "-x", kind.lower(), "-fsyntax-only", "-"]
    include = f"-I{sysconfig.get_path('include')}"
    source = f"#include <Python.h>\n{library}"
    try:
        result = subprocess.run([*command, include], input=source, capture_output=True, text=True)
    except OSError as error:
        return str(error.strerror)
    lines = [line for line in result.stderr.splitlines() if "error" in line]
    return (lines or ["an error"])[0] if result.returncode else ""


def _cache_folder() -> Path | None:
    """The first folder for compiled code that can be used; None if none can."""
    return next((folder for folder in _folders() if _is_usable(folder)), None)


def _folders() -> list[Path]:
    """The folder that the variable names, then torch's default, then one at home."""
    folders = []
    with contextlib.suppress(OSError):  # There is no temporary folder.
        folders.append(Path(tempfile.gettempdir()))
    with contextlib.suppress(RuntimeError):  # There is no home.
        folders.append(Path.home() / ".cache")
    # Torch sets the variable itself, to its default, so that an unusable one may not be the user's.
    given = os.environ.get(_CACHE)
    named = [Path(given)] if given else []
    return [*named, *(folder / f"torchinductor_{_user()}" for folder in folders)]


def _user() -> str:
    """The user's name; in some containers, users have only a number."""
    try:
        return getpass.getuser()
    except (KeyError, ImportError, OSError):
        return f"uid_{os.getuid()}"


def _is_usable(folder: Path) -> bool:
    """Whether files can be written to a folder and run from it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        return not (hasattr(os, "statvfs") and os.statvfs(folder).f_flag & os.ST_NOEXEC)
    except OSError:
        return False
