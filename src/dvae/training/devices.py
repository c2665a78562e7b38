"""Choice of the device, and process settings that speed up a CPU."""

import contextlib
import ctypes
import os
import shutil
import warnings
from pathlib import Path

import torch

from dvae.errors import UserError

__all__ = ["describe_device", "has_gpu", "resolve_device", "tune_process", "tune_torch"]

# Parameters of glibc's mallopt.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KEEP_BYTES = 2**30
_NVML = "PYTORCH_NVML_BASED_CUDA_CHECK"
_complaints: list[str] = []


def has_gpu() -> bool:
    """Whether torch can compute on a GPU with CUDA or ROCm."""
    # Lightning makes torch ask NVML, which also counts GPUs whose driver is too old for torch.
    asked = os.environ.pop(_NVML, None)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = torch.cuda.is_available()
    finally:
        if asked is not None:
            os.environ[_NVML] = asked
    # Torch complains only when it looks for the first time in a process.
    _complaints.extend(str(warning.message) for warning in caught)
    return found


def resolve_device(name: str, key: str = "device") -> torch.device:
    """The device for a name: auto, cpu, or cuda, which is also called gpu.

    Args:
        name: The name; auto is a GPU if torch can use one.
        key: The configuration key that errors name.

    Raises:
        UserError: If the device is not available.
    """
    if name == "cpu":
        return torch.device("cpu")
    if has_gpu():
        return torch.device("cuda")
    if name != "auto":
        raise UserError(f"{key}: expected cpu or auto on this machine, found {name}; {_why_cpu()}")
    return torch.device("cpu")


def describe_device(name: str, processes: int | str = 1) -> str:
    """Where a run computes and, if it is the CPU, why: one line for the user.

    Args:
        name: See `resolve_device`.
        processes: Devices of the run; "auto" is all GPUs.
    """
    device = resolve_device(name)
    if device.type == "cuda":
        count = torch.cuda.device_count() if processes == "auto" else processes
        what = torch.cuda.get_device_name()
    else:
        count, threads = (1 if processes == "auto" else processes), torch.get_num_threads()
        why = "as asked" if name == "cpu" else _why_cpu()
        what = f"cpu ({threads} thread{'s' if threads > 1 else ''}): {why}"
    return f"device: {what}" if count == 1 else f"device: {count} × {what}"


def _why_cpu() -> str:
    """Why torch finds no GPU."""
    if _complaints:
        # Advice follows the first sentence.
        sentence = _complaints[0].removeprefix("CUDA initialization: ").partition(". ")[0]
        return f"{' '.join(sentence.split())}, says torch {torch.__version__}"
    if _has_driver():
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        if not torch.backends.cuda.is_built():
            return f"torch {torch.__version__} is built without CUDA, for which there is a driver"
        if hidden is not None:
            return f"CUDA_VISIBLE_DEVICES={hidden!r} hides the GPUs"
        return "there is a driver of NVIDIA, but torch finds no GPU"
    if torch.backends.mps.is_available():
        return "of the GPUs, dvae uses those with CUDA only"
    return "no GPU found"


def _has_driver() -> bool:
    return Path("/proc/driver/nvidia").exists() or shutil.which("nvidia-smi") is not None


def tune_process() -> None:
    """Sets options of the process that save time on a CPU; see `tune_torch`.

    Freed memory is kept, because the system would otherwise clear the pages of large buffers at
    every step.
    """
    tune_torch()
    # The C library is not glibc; Windows refuses None.
    with contextlib.suppress(OSError, AttributeError, TypeError):
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
    if not has_gpu():
        os.environ[_NVML] = "0"
