"""The MNIST files that ship with the package."""

import functools
import gzip
import hashlib
from importlib.resources import files
from pathlib import Path

from dvae.errors import UserError
from dvae.files import write_file

__all__ = ["MNIST_MD5", "unpack_mnist"]

MNIST_MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
"""Checksums of the unpacked files."""


def unpack_mnist(root: Path) -> None:
    """Unpacks MNIST into `root/MNIST/raw`, torchvision's layout; existing files are only checked.

    Each file is written under a temporary name and then renamed, so that it is never incomplete.

    Raises:
        UserError: If an existing file has another checksum, or the folder cannot be written.
    """
    folder = root / "MNIST" / "raw"
    for name, expected in MNIST_MD5.items():
        target = folder / name
        try:
            if target.exists():
                _check_file(target, target.stat().st_mtime_ns, expected)
                continue
            content = gzip.decompress(files("dvae").joinpath(f"data/mnist/{name}.gz").read_bytes())
            _check_md5(content, expected, target)
            folder.mkdir(parents=True, exist_ok=True)
            with write_file(target, "wb") as file:
                file.write(content)
        except OSError as error:
            raise UserError(
                f"paths.data_dir: expected a folder to unpack MNIST into, found {folder}: "
                f"{error.strerror or error}; for a checkpoint, the key is data_dir"
            ) from error


@functools.lru_cache
def _check_file(target: Path, modified: int, expected: str) -> None:
    """Checks a file once per process, and again if its time of modification changes."""
    _check_md5(target.read_bytes(), expected, target)


def _check_md5(content: bytes, expected: str, path: Path) -> None:
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != expected:
        raise UserError(
            f"{path}: expected MNIST with md5 {expected}, found {found}; "
            "remove the file, and it is unpacked again"
        )
