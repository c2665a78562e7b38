"""Data sets of torchvision, downloaded if missing; ink is bright on a dark background."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar
from urllib.error import URLError

import torch
from torch import Tensor
from torchvision import datasets
from torchvision.transforms.functional import pil_to_tensor

from dvae.data.sources.base import Source
from dvae.errors import UserError

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "EMNIST",
    "KMNIST",
    "SVHN",
    "FashionMNIST",
    "Omniglot",
    "TorchvisionSource",
    "usable",
]


class TorchvisionSource(Source):
    """A data set in the file format of MNIST.

    Attributes:
        dataset: The data set's class in torchvision.
    """

    dataset: ClassVar[Callable[..., Any]]

    def __init__(self, name: str, root: Path, image_shape: Sequence[int]) -> None:
        super().__init__(name, root, image_shape)
        # Keeps opened data sets, because images and labels share their files.
        self._opened: dict[bool, Any] = {}

    def prepare(self) -> None:
        """Downloads missing files; see `Source.prepare`."""
        self._open(True)
        self._open(False)

    def read(self, train: bool) -> Tensor:
        """Reads the images; see `Source.read`."""
        return self._open(train).data.unsqueeze(1)

    def read_labels(self, train: bool) -> Tensor:
        """Reads the classes; see `Source.read_labels`."""
        return self._open(train).targets.long()

    def _construct(self, train: bool) -> Any:
        """Builds torchvision's data set."""
        return type(self).dataset(self.root, train=train, download=True)

    def _open(self, train: bool) -> Any:
        """Opens torchvision's data set, and downloads it if it is missing.

        Raises:
            UserError: If it can be neither read nor downloaded.
        """
        if train not in self._opened:
            self._opened[train] = usable(self, lambda: self._construct(train))
        return self._opened[train]


def usable(source: Source, read: Callable[[], Any]) -> Any:
    """Calls a function that reads or downloads a source's files.

    Raises:
        UserError: If the files can be neither read nor downloaded, or a package is missing.
    """
    try:
        return read()
    except ImportError as error:
        raise UserError(
            f"data={source.name}: expected the package {error.name}, found none; "
            'pip install -e ".[datasets]"'
        ) from error
    except (RuntimeError, URLError, OSError, ValueError, AssertionError) as error:
        lines = str(error).splitlines() or [type(error).__name__]
        raise UserError(
            f"data={source.name}: expected the files {source.files} in {source.root} or a "
            f"connection to download them, found neither usable ({lines[-1]})"
        ) from error


class FashionMNIST(TorchvisionSource):
    """Articles of clothing, 60,000 and 10,000 grey images of 28 × 28; Xiao et al. 2017."""

    files = "FashionMNIST/raw/{train,t10k}-{images-idx3,labels-idx1}-ubyte"
    dataset = datasets.FashionMNIST


class KMNIST(TorchvisionSource):
    """Cursive Japanese letters, 60,000 and 10,000 grey images of 28 × 28; Clanuwat et al. 2018."""

    files = "KMNIST/raw/{train,t10k}-{images-idx3,labels-idx1}-ubyte"
    dataset = datasets.KMNIST


class EMNIST(TorchvisionSource):
    """Letters and digits, the split "balanced", turned upright; Cohen et al. 2017."""

    files = "EMNIST/raw/emnist-balanced-{train,test}-{images-idx3,labels-idx1}-ubyte"

    def read(self, train: bool) -> Tensor:
        """Reads the images; see `Source.read`."""
        return super().read(train).transpose(2, 3)

    def _construct(self, train: bool) -> Any:
        return datasets.EMNIST(self.root, split="balanced", train=train, download=True)


class Omniglot(TorchvisionSource):
    """Characters of 50 alphabets, inverted: the background set for training; Lake et al. 2015.

    The 105 × 105 drawings are resized bilinearly, with antialiasing.
    """

    files = "omniglot-py/images_{background,evaluation}.zip and the folders in them"

    def read(self, train: bool) -> Tensor:
        """Reads the images; see `Source.read`."""
        drawings = self._open(train)
        images = (pil_to_tensor(image) for image, _ in drawings)
        pixels = usable(self, lambda: torch.stack(list(images)))
        return 255 - pixels

    def read_labels(self, train: bool) -> Tensor:
        """Raises a `UserError`: the training and test sets have different characters."""
        return Source.read_labels(self, train)

    def _construct(self, train: bool) -> Any:
        return datasets.Omniglot(str(self.root), background=train, download=True)


class CIFAR10(TorchvisionSource):
    """Animals and vehicles, 50,000 and 10,000 photographs of 32 × 32; Krizhevsky 2009."""

    files = "cifar-10-batches-py/{data_batch_1 … data_batch_5,test_batch,batches.meta}"
    dataset = datasets.CIFAR10

    def read(self, train: bool) -> Tensor:
        """Reads the images; see `Source.read`."""
        return torch.from_numpy(self._open(train).data).permute(0, 3, 1, 2)

    def read_labels(self, train: bool) -> Tensor:
        """Reads the classes; see `Source.read_labels`."""
        return torch.tensor(self._open(train).targets)


class CIFAR100(CIFAR10):
    """The same in 100 finer classes."""

    files = "cifar-100-python/{train,test,meta}"
    dataset = datasets.CIFAR100


class SVHN(TorchvisionSource):
    """House numbers, 73,257 and 26,032 photographs of 32 × 32; Netzer et al. 2011."""

    files = "{train,test}_32x32.mat"

    def read(self, train: bool) -> Tensor:
        """Reads the images; see `Source.read`."""
        return torch.from_numpy(self._open(train).data)

    def read_labels(self, train: bool) -> Tensor:
        """Reads the digits; see `Source.read_labels`."""
        return torch.from_numpy(self._open(train).labels)

    def _construct(self, train: bool) -> Any:
        return datasets.SVHN(self.root, split="train" if train else "test", download=True)
