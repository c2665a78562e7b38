"""Decodes files of images into one file of bytes, on all cores."""

import json
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from dvae.data.cache import IMAGES, progress
from dvae.data.decode import Decoder
from dvae.errors import UserError
from dvae.files import write_json

__all__ = ["Broken", "ImageFile", "check_broken", "prepare_images", "read_broken"]

_BATCH = 64
_SHOWN = 100


class ImageFile(NamedTuple):
    """A file below a folder.

    Attributes:
        name: Its path relative to the folder, with slashes.
        size: Bytes; -1 if there is no such file, as behind a broken link.
        modified: Time of modification in nanoseconds.
    """

    name: str
    size: int
    modified: int


Broken = dict[str, str]
"""Name of each file that is left out → why it cannot be read."""


def prepare_images(
    folder: Path,
    directory: Path,
    names: Sequence[str],
    decoder: Decoder,
    max_broken: float,
    key: str,
) -> None:
    """Decodes files into `IMAGES`; see `dvae.data.cache.prepared_folder`.

    Files that cannot be read are left out, and named on the screen.

    Args:
        folder: The folder to write to.
        directory: The folder of the files.
        names: Their paths below it, in the order of the images.
        decoder: Turns a file into an image.
        max_broken: The largest share of the files that may be left out.
        key: Name of the option that names the files, for error messages.

    Raises:
        UserError: If too many files cannot be read.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    loader: DataLoader[Any] = DataLoader(
        _Decoded(directory, names, decoder),
        _BATCH,
        num_workers=min(cores or 1, len(names) // _BATCH),
        collate_fn=_collate,
        # Leaves the global random numbers, from which the run draws, as they are.
        generator=torch.Generator(),
    )
    broken: Broken = {}
    with (folder / IMAGES).open("wb") as output:
        remaining = iter(names)
        for images, errors in progress(loader, len(names)):
            output.write(images)
            # In this order, since `zip` would take a name too many.
            pairs = zip(errors, remaining, strict=False)
            broken |= {name: error for error, name in pairs if error is not None}
            check_broken(broken, len(names), max_broken, key)
    write_json(folder / "broken.json", broken)
    if broken:
        lines = [f"{name}: {reason}" for name, reason in list(broken.items())[:_SHOWN]]
        lines += [f"and {len(broken) - _SHOWN} more"] if len(broken) > _SHOWN else []
        text = f"Left out {len(broken)} of {len(names)} files, which cannot be read:"
        print("\n  ".join([text, *lines]), file=sys.stderr)


def check_broken(broken: Broken, total: int, max_broken: float, key: str) -> None:
    """Checks how many files cannot be read.

    Raises:
        UserError: If they are too many, or all.
    """
    if broken and (len(broken) > max_broken * total or len(broken) == total):
        name, reason = next(iter(broken.items()))
        raise UserError(
            f"{key}: expected images, of which at most data.max_broken={max_broken} cannot be "
            f"read, found {len(broken)} such files among {total}, {name} first ({reason})"
        )


def read_broken(folder: Path) -> Broken:
    """Reads which files `prepare_images` has left out."""
    broken: Broken = json.loads((folder / "broken.json").read_text())
    return broken


class _Decoded(Dataset[np.ndarray[Any, Any] | str]):
    """The images of files, or the reasons why they cannot be read."""

    def __init__(self, directory: Path, names: Sequence[str], decoder: Decoder) -> None:
        self._directory = directory
        self._names = names
        self._decoder = decoder

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> np.ndarray[Any, Any] | str:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return self._decoder(self._directory / self._names[index])
        except Exception as error:
            # Pillow raises errors of almost any kind for broken files.
            return " ".join(str(error).split()) or type(error).__name__


def _collate(items: Sequence[np.ndarray[Any, Any] | str]) -> tuple[bytes, list[str | None]]:
    """The bytes of the images, and for each item its error or None."""
    errors = [item if isinstance(item, str) else None for item in items]
    return b"".join(item.tobytes() for item in items if not isinstance(item, str)), errors
