"""Data sets of torchvision, downloaded if missing, with bright ink on a dark background."""

import math
import struct
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torchvision import datasets
from torchvision.transforms.functional import pil_to_tensor

from dvae.data.sources.base import Source
from dvae.errors import BusyError, UserError
from dvae.files import lock_folder

__all__ = ["EMNIST", "KMNIST", "FashionMNIST", "Omniglot", "TorchvisionSource"]

_UNREADABLE = (AssertionError, OSError, RuntimeError, TypeError, ValueError)
"""What torchvision raises if it can neither read nor download a file."""


class TorchvisionSource(Source):
    """A data set in the file format of MNIST.

    Attributes:
        dataset: The data set's class in torchvision.
        unpacked: Pattern of the unpacked files in the data folder.
    """

    dataset: ClassVar[Callable[..., Any]]
    unpacked: ClassVar[str]

    def __init__(self, name: str, root: Path, image_shape: Sequence[int]) -> None:
        super().__init__(name, root, image_shape)
        # Keeps opened data sets, because images and labels share their files.
        self._opened: dict[bool, Any] = {}

    def prepare(self) -> None:
        """Downloads missing and truncated files; see `Source.prepare`."""
        if self._is_complete():
            return
        with _alone(self.root, self.name):
            broken = [path.rename(path.with_name(f"{path.name}.broken")) for path in self._broken()]
            try:
                self._open(True)
                self._open(False)
            except UserError:
                for path in broken:
                    path.rename(path.with_suffix(""))
                self._check_files()
                raise
            for path in broken:
                path.unlink()

    def read(self, train: bool) -> Tensor:
        """Reads the images; see `Source.read`."""
        return self._open(train).data.unsqueeze(1)

    def read_labels(self, train: bool) -> Tensor:
        """Reads the classes; see `Source.read_labels`."""
        return self._open(train).targets.long()

    def _construct(self, train: bool, download: bool) -> Any:
        """Builds torchvision's data set."""
        return type(self).dataset(self.root, train=train, download=download)

    def _is_complete(self) -> bool:
        """Whether all files are there, so that nobody has to be waited for."""
        try:
            if not self._broken():
                self._opened = {train: self._construct(train, False) for train in (True, False)}
        except _UNREADABLE:
            return False
        return bool(self._opened)

    def _broken(self) -> dict[Path, str]:
        """Truncated files, such as a killed process leaves, with what is wrong."""
        broken = {}
        for path in sorted(self.root.glob(self.unpacked)):
            expected, found = _size_by_header(path), path.stat().st_size
            if expected != found:
                what = "an IDX file" if expected is None else f"{expected:,} bytes"
                broken[path] = f"expected {what}, found {found:,} bytes"
        return broken

    def _check_files(self) -> None:
        """Raises a `UserError` that names a truncated file, if there is one."""
        for path, problem in self._broken().items():
            raise UserError(
                f"data={self.name}: {path}: {problem}; remove it, and it is downloaded again"
            )

    def _open(self, train: bool) -> Any:
        """Opens torchvision's data set, and downloads it if it is missing.

        Raises:
            UserError: If it can be neither read nor downloaded.
        """
        if train not in self._opened:
            self._opened[train] = self._try(lambda: self._construct(train, True))
        return self._opened[train]

    def _try(self, read: Callable[[], Any]) -> Any:
        """Calls a function that reads files, and turns its errors into a `UserError`."""
        try:
            return read()
        except _UNREADABLE as error:
            self._check_files()
            lines = str(error).splitlines() or [type(error).__name__]
            raise UserError(
                f"data={self.name}: expected the files {self.files} in {self.root} or a connection "
                f"to download them, found neither usable ({lines[-1]})"
            ) from error


class FashionMNIST(TorchvisionSource):
    """Articles of clothing, 60,000 and 10,000 grey images of 28 × 28; Xiao et al. 2017."""

    files = "FashionMNIST/raw/{train,t10k}-{images-idx3,labels-idx1}-ubyte"
    unpacked = "FashionMNIST/raw/*-ubyte"
    dataset = datasets.FashionMNIST


class KMNIST(TorchvisionSource):
    """Cursive Japanese letters, 60,000 and 10,000 grey images of 28 × 28; Clanuwat et al. 2018."""

    files = "KMNIST/raw/{train,t10k}-{images-idx3,labels-idx1}-ubyte"
    unpacked = "KMNIST/raw/*-ubyte"
    dataset = datasets.KMNIST


class EMNIST(TorchvisionSource):
    """Letters and digits, the split "balanced", turned upright; Cohen et al. 2017."""

    files = "EMNIST/raw/emnist-balanced-{train,test}-{images-idx3,labels-idx1}-ubyte"
    unpacked = "EMNIST/raw/emnist-balanced-*-ubyte"

    def read(self, train: bool) -> Tensor:
        """Reads the images; see `Source.read`."""
        return super().read(train).transpose(2, 3)

    def _construct(self, train: bool, download: bool) -> Any:
        return datasets.EMNIST(self.root, split="balanced", train=train, download=download)


class Omniglot(TorchvisionSource):
    """Characters of 50 alphabets, inverted: the background set for training; Lake et al. 2015.

    The 105 × 105 drawings are resized bilinearly, with antialiasing.
    """

    files = "omniglot-py/images_{background,evaluation}.zip and the folders in them"

    def read(self, train: bool) -> Tensor:
        """Reads the images; see `Source.read`."""
        drawings = self._open(train)
        pixels = self._try(lambda: torch.stack([pil_to_tensor(image) for image, _ in drawings]))
        return 255 - pixels

    def read_labels(self, train: bool) -> Tensor:
        """Raises a `UserError`: the training and test sets have different characters."""
        return Source.read_labels(self, train)

    def _construct(self, train: bool, download: bool) -> Any:
        return datasets.Omniglot(str(self.root), background=train, download=download)

    def _broken(self) -> dict[Path, str]:
        """Archives that were unpacked in part; torchvision unpacks only what it has downloaded."""
        broken = {}
        for archive in sorted(self.root.glob("omniglot-py/images_*.zip")):
            # Torchvision checks archives by itself.
            if not zipfile.is_zipfile(archive):
                continue
            with zipfile.ZipFile(archive) as content:
                names = [name for name in content.namelist() if name.endswith(".png")]
            folder = archive.with_suffix("")
            expected = sum(name.startswith(f"{folder.name}/") for name in names)
            if expected != (found := sum(1 for _ in folder.rglob("*.png"))):
                broken[archive] = f"expected its {expected:,} drawings in {folder}, found {found:,}"
        return broken


def _size_by_header(path: Path) -> int | None:
    """The size of an IDX file of bytes, according to its header; None if it has no such header."""
    with path.open("rb") as file:
        magic = file.read(4)
        sizes = file.read(4 * magic[3]) if magic[:3] == b"\0\0\x08" and len(magic) == 4 else b""
    if not sizes or len(sizes) != 4 * magic[3]:
        return None
    return 4 + len(sizes) + math.prod(struct.unpack(f">{magic[3]}I", sizes))


@contextmanager
def _alone(folder: Path, name: str) -> Iterator[None]:
    """Waits while another process downloads into a folder, and lets others wait."""
    with ExitStack() as stack:
        waits = False
        while True:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                stack.enter_context(lock_folder(folder))
                break
            except BusyError:
                if not waits:
                    print(f"data={name}: waiting for another process to download it", flush=True)
                waits = True
                time.sleep(0.2)
            except OSError as error:
                raise UserError(
                    f"paths.data_dir: expected a folder to download data={name} into, found "
                    f"{folder}: {error.strerror or error}"
                ) from error
        yield
