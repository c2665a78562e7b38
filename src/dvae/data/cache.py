"""Images that are prepared once, in files that all processes and runs map into memory."""

import ctypes
import json
import math
import mmap
import shutil
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.utils.data import DataLoader

from dvae.errors import UserError
from dvae.files import lock_folder, remove_parts, write_folder

__all__ = ["IMAGES", "map_images", "prefetch", "prepared_folder", "progress", "read_only"]


_Part = TypeVar("_Part")

IMAGES = "images.uint8"
"""Name of the file of images (M, C, H, W), without a header."""


def prepared_folder(
    data_dir: Path, name: str, key: Any, shape: Sequence[int], fill: Callable[[Path], None]
) -> Path:
    """A folder of prepared files, `data_dir/prepared/NAME-HASH`, which is filled if it is missing.

    It is written whole or not at all. One process fills it, and the others wait.

    Args:
        data_dir: The data folder.
        name: Name of the source.
        key: Everything that the files depend on, as values that JSON knows.
        shape: (M, C, H, W).
        fill: Writes `IMAGES`, and what else belongs to it, into the folder it is called with.

    Raises:
        UserError: If the disk is too small.
    """
    root = data_dir / "prepared"
    digest = blake2b(json.dumps(key).encode(), digest_size=8).hexdigest()
    folder = root / f"{name}-{digest}"
    if folder.is_dir():
        return folder
    root.mkdir(parents=True, exist_ok=True)
    with lock_folder(root, f"{root}: waiting for another process that prepares images"):
        if not folder.is_dir():
            remove_parts(root)
            needed, free = math.prod(shape), shutil.disk_usage(root).free
            if needed > free:
                raise UserError(
                    f"paths.data_dir: expected {needed / 1e9:.1f} GB of free space for {shape[0]} "
                    f"prepared images, found {free / 1e9:.1f} at {root}"
                )
            with write_folder(folder) as part:
                fill(part)
    return folder


def progress(parts: Sequence[_Part] | DataLoader[_Part], total: int) -> Iterable[_Part]:
    """Iterates over the parts of a preparation, with a bar; without a terminal, after a line.

    Args:
        parts: Whose number is known.
        total: Number of images.
    """
    console = Console(stderr=True)
    if console.is_terminal:
        return track(parts, "Preparing images", console=console)
    print(f"preparing {total:,} images", file=sys.stderr, flush=True)
    return parts


def map_images(file: Path | IO[bytes], shape: Sequence[int]) -> Tensor:
    """The images of a file of bytes, uint8 (M, C, H, W), read only when they are used."""
    return read_only(np.memmap(file, np.uint8, "r", shape=tuple(shape)))


def read_only(array: np.ndarray[Any, Any]) -> Tensor:
    """A tensor in the memory of an array that must not be written to."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*not writable.*")
        return torch.from_numpy(array)


_madvise: Any = None
if sys.platform != "win32":
    _madvise = ctypes.PyDLL(None).madvise
    _madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


def prefetch(images: Tensor, indices: Iterable[int]) -> None:
    """Asks the system to read some images of a file from the disk, all at the same time.

    Otherwise it would read them one after another, each with 128 KiB of what lies around it: ten
    times slower if the file is larger than memory.

    Args:
        images: From `map_images`, contiguous.
        indices: Which of them.
    """
    if _madvise is None:
        return
    size, start = images[0].numel(), images.data_ptr()
    for index in indices:
        first = start + index * size
        page = first - first % mmap.PAGESIZE
        _madvise(page, first + size - page, mmap.MADV_WILLNEED)
