"""Devices by the names that configurations use, and what makes a process fast on them."""

import contextlib
import ctypes

import torch

from dvae.errors import UserError

__all__ = ["resolve_device", "tune_process"]

# Parameters of glibc's mallopt.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KEEP_BYTES = 2**30


def resolve_device(name: str) -> torch.device:
    """The device of a name: auto, cpu or cuda.

    Raises:
        UserError: If it is not available.
    """
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise UserError("device: expected cpu or auto on this machine, found cuda without a GPU")
    return torch.device("cuda" if available and name != "cpu" else "cpu")


def tune_process() -> None:
    """Settings of the process that change no result and save time on a CPU.

    Denormal numbers, to which softmaxes and moments decay late in a run, count as zero: they are
    slow. Threads that start later inherit the setting. Freed memory is kept: the system would clear
    each page of a buffer of some megabytes anew at every step.
    """
    torch.set_flush_denormal(True)
    with contextlib.suppress(OSError, AttributeError):  # Another C library than glibc.
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_THRESHOLD, _KEEP_BYTES)
        mallopt(_TRIM_THRESHOLD, _KEEP_BYTES)
