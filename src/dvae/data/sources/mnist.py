"""MNIST, which ships with the package."""

import numpy as np
import torch
from torch import Tensor
from torchvision import datasets

from dvae.data.sources.bundled import unpack_mnist
from dvae.data.sources.torchvision import TorchvisionSource
from dvae.errors import UserError

__all__ = ["MNIST"]

_PUBLISHED = {"train": "train", "val": "valid", "test": "test"}
_PIXELS = 28 * 28


class MNIST(TorchvisionSource):
    """Handwritten digits, 60,000 and 10,000 grey images of 28 × 28; LeCun, Cortes, Burges."""

    files = "MNIST/raw/{train,t10k}-{images-idx3,labels-idx1}-ubyte"
    unpacked = "MNIST/raw/*-ubyte"
    dataset = datasets.MNIST

    def prepare(self) -> None:
        """Unpacks missing files; see `Source.prepare`."""
        unpack_mnist(self.root)

    def read(self, train: bool) -> Tensor:
        """Checks the files and reads the images; see `Source.read`."""
        self.prepare()
        return super().read(train)

    def read_binarized(self, split: str) -> Tensor | None:
        """Reads `binarized_mnist_{train,valid,test}.amat` if it is in the data folder.

        Raises:
            UserError: If the file holds anything but rows of 784 zeros and ones.

        References:
            Larochelle, Murray 2011, who published this binarization of MNIST.
        """
        path = self.root / f"binarized_mnist_{_PUBLISHED[split]}.amat"
        if self.image_shape != (1, 28, 28) or not path.exists():
            return None
        text = np.fromfile(path, dtype=np.uint8)
        digits = text[~np.isin(text, np.frombuffer(b" \r\n\t", dtype=np.uint8))]
        if not len(digits) or len(digits) % _PIXELS or not np.isin(digits, [48, 49]).all():
            raise UserError(
                f"{path}: expected rows of {_PIXELS} digits 0 or 1, found other contents"
            )
        return torch.from_numpy((digits - 48) * 255).reshape(-1, 1, 28, 28)
