"""Choice of the device, and process settings that speed up a CPU."""

import contextlib
import ctypes
import os

import torch

from dvae.errors import UserError

__all__ = ["resolve_device", "tune_process", "tune_torch"]

# Parameters of glibc's mallopt.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KEEP_BYTES = 2**30


def resolve_device(name: str) -> torch.device:
    """The device for a name: auto, cpu or cuda.

    Raises:
        UserError: If the device is not available.
    """
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise UserError("device: expected cpu or auto on this machine, found cuda without a GPU")
    return torch.device("cuda" if available and name != "cpu" else "cpu")


def tune_process() -> None:
    """Sets options of the process that save time on a CPU; see `tune_torch`.

    Freed memory is kept, because the system would otherwise clear the pages of large buffers at
    every step.
    """
    tune_torch()
    with contextlib.suppress(OSError, AttributeError):  # The C library is not glibc.
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_THRESHOLD, _KEEP_BYTES)
        mallopt(_TRIM_THRESHOLD, _KEEP_BYTES)


def tune_torch() -> None:
    """Sets options of torch that save time on a CPU.

    Denormal numbers are flushed to zero, because they are slow: softmaxes and optimizer moments
    decay to them late in a run. Threads that start later inherit the setting. Without a GPU, torch
    does not look for one with NVML, as Lightning asks it to: it would at every step.
    """
    torch.set_flush_denormal(True)
    if not torch.cuda.is_available():
        os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"
