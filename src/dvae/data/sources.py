"""Data sets by name: whole splits as uint8 tensors (M, 1, 28, 28), ink bright on dark."""

from pathlib import Path
from urllib.error import URLError

import numpy as np
import torch
from torch import Tensor
from torchvision import datasets
from torchvision.transforms.functional import pil_to_tensor, resize

from dvae.data.bundled import unpack_mnist
from dvae.errors import UserError

__all__ = ["IMAGE_SHAPE", "SOURCES", "load_images", "load_labels", "read_published_binarization"]

IMAGE_SHAPE = (1, 28, 28)
"""Channels, height and width of every data set."""

SOURCES = {
    "mnist": "MNIST/raw/{train,t10k}-{images-idx3,labels-idx1}-ubyte",
    "fashion_mnist": "FashionMNIST/raw/{train,t10k}-{images-idx3,labels-idx1}-ubyte",
    "kmnist": "KMNIST/raw/{train,t10k}-{images-idx3,labels-idx1}-ubyte",
    "emnist": "EMNIST/raw/emnist-balanced-{train,test}-{images-idx3,labels-idx1}-ubyte",
    "omniglot": "omniglot-py/images_{background,evaluation}.zip and the folders in them",
}
"""Names of the data sets, each with the files that it is read from in the data folder."""

_IDX_CLASSES = {
    "mnist": datasets.MNIST,
    "fashion_mnist": datasets.FashionMNIST,
    "kmnist": datasets.KMNIST,
}


def load_images(name: str, root: Path, *, train: bool) -> Tensor:
    """Loads the training or the test images of a data set.

    MNIST is bundled. The others are downloaded by torchvision where they are missing. EMNIST is
    the split "balanced", turned upright. Omniglot (background set for training, evaluation set for
    testing) is inverted and brought from 105 × 105 to 28 × 28 by antialiased bilinear resizing.

    Args:
        name: A name out of `SOURCES`.
        root: The data folder.
        train: Training or test images.

    Returns:
        uint8 images (M, 1, 28, 28), in the order of the file.

    Raises:
        UserError: If the files are missing and cannot be downloaded, or are broken.
    """
    if name == "mnist":
        unpack_mnist(root)
    try:
        if name == "omniglot":
            images = _load_omniglot(root, train)
        elif name == "emnist":
            source = datasets.EMNIST(root, split="balanced", train=train, download=True)
            images = source.data.transpose(1, 2).unsqueeze(1)
        else:
            images = _IDX_CLASSES[name](root, train=train, download=True).data.unsqueeze(1)
    except (RuntimeError, URLError, OSError, ValueError, AssertionError) as error:
        lines = str(error).splitlines() or [type(error).__name__]
        raise UserError(
            f"data={name}: expected the files {SOURCES[name]} in {root} or a connection to "
            f"download them, found neither usable ({lines[-1]})"
        ) from error
    if images.dtype != torch.uint8 or tuple(images.shape[1:]) != IMAGE_SHAPE or not len(images):
        raise UserError(
            f"data={name}: expected uint8 images of {IMAGE_SHAPE}, "
            f"found {images.dtype} {tuple(images.shape)}"
        )
    return images.contiguous()


def load_labels(name: str, root: Path, *, train: bool) -> Tensor:
    """The classes of the images that `load_images` loads, once they have been loaded.

    Args:
        name: "mnist", "fashion_mnist" or "kmnist".
        root: The data folder.
        train: Training or test images.

    Returns:
        int64 classes in 0 … 9, (M,).
    """
    return _IDX_CLASSES[name](root, train=train).targets.long()


def _load_omniglot(root: Path, train: bool) -> Tensor:
    source = datasets.Omniglot(str(root), background=train, download=True)
    drawings = torch.stack([pil_to_tensor(image) for image, _ in source])
    return torch.cat(
        [resize(255 - part, [28, 28], antialias=True) for part in drawings.split(2048)]
    )


def read_published_binarization(root: Path, split: str) -> Tensor | None:
    """Reads `binarized_mnist_{train,valid,test}.amat` where it lies in the data folder.

    Args:
        root: The data folder.
        split: "train", "valid" or "test".

    Returns:
        uint8 images (M, 1, 28, 28) of values 0 and 255, or None where there is no file.

    Raises:
        UserError: If the file holds anything but rows of 784 zeros and ones.

    References:
        Larochelle, Murray 2011, by whom this binarization of MNIST was published.
    """
    path = root / f"binarized_mnist_{split}.amat"
    if not path.exists():
        return None
    text = np.fromfile(path, dtype=np.uint8)
    digits = text[~np.isin(text, np.frombuffer(b" \r\n\t", dtype=np.uint8))]
    pixels = IMAGE_SHAPE[1] * IMAGE_SHAPE[2]
    if not len(digits) or len(digits) % pixels or not np.isin(digits, [48, 49]).all():
        raise UserError(f"{path}: expected rows of {pixels} digits 0 or 1, found other contents")
    return torch.from_numpy((digits - 48) * 255).reshape(-1, *IMAGE_SHAPE)
