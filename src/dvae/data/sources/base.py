"""Base class of sources of images."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor
from torchvision.transforms.functional import resize

from dvae.data.decode import Decoder
from dvae.errors import UserError

__all__ = ["Source", "resized"]

_CHUNK = 2048
_WHITE = (255, 255, 255)


class Source(ABC):
    """Loads training and test images of one shape.

    Args:
        name: Name in configurations, for error messages.
        root: The data folder.
        image_shape: (C, H, W) of the loaded images; images of another size are resized.

    Attributes:
        files: Names of the files in the data folder, for error messages.
        decoder: Turns files of images into images like these.
        mapped: Whether the images are memory-mapped files, which may be larger than memory.
    """

    files: str
    mapped: ClassVar[bool] = False

    def __init__(self, name: str, root: Path, image_shape: Sequence[int]) -> None:
        self.name = name
        self.root = root
        self.image_shape = tuple(image_shape)
        channels, height, width = image_shape
        self.decoder = Decoder((channels, height, width), "crop", _WHITE)

    @abstractmethod
    def prepare(self) -> None:
        """Unpacks or downloads missing files; called in one process only.

        Raises:
            UserError: If files are broken, or missing and cannot be downloaded.
        """

    @abstractmethod
    def read(self, train: bool) -> Tensor:
        """Reads the training or the test images, uint8 (M, C, any height, any width)."""

    def read_validation(self) -> Tensor | None:
        """Reads the validation images, as `read` does, if the source has some of its own.

        Returns:
            The images, or None if the end of the training images is to be held out.
        """
        return None

    def names(self, split: str) -> list[str] | None:
        """Names of the files of a split ("train", "val" or "test"), if each image has its own."""
        return None

    def read_labels(self, train: bool) -> Tensor:
        """Reads the class of each image, int64 in 0 … `num_classes` − 1, (M,).

        Raises:
            UserError: If the images have no labels.
        """
        raise UserError(f"data={self.name}: expected images with labels, found none")

    def read_binarized(self, split: str) -> Tensor | None:
        """Reads a published binarization of a split ("train", "val" or "test"), if there is one.

        Returns:
            uint8 images (M, C, H, W) of values 0 and 255, or None.
        """
        return None

    def load(self, train: bool) -> Tensor:
        """The training or the test images.

        Returns:
            uint8, (M, C, H, W), in the order of the file.

        Raises:
            UserError: If there are no images, or their dtype or number of channels is wrong.
        """
        return self._shaped(self.read(train))

    def load_validation(self) -> Tensor | None:
        """The source's own validation images, as `load` returns them, or None."""
        images = self.read_validation()
        return None if images is None else self._shaped(images)

    def _shaped(self, images: Tensor) -> Tensor:
        kind = (images.dtype, images.ndim, images.shape[1] if images.ndim > 1 else 0)
        if kind != (torch.uint8, 4, self.image_shape[0]) or not len(images):
            raise UserError(
                f"data={self.name}: expected uint8 images with {self.image_shape[0]} channels, "
                f"found {images.dtype} {tuple(images.shape)}"
            )
        if images.shape[1:] != self.image_shape:
            images = torch.cat([resized(part, self.image_shape) for part in images.split(_CHUNK)])
        return images.contiguous()


def resized(images: Tensor, image_shape: Sequence[int]) -> Tensor:
    """Resizes uint8 images (M, C, any height, any width) to (M, C, H, W)."""
    return resize(images, list(image_shape[1:]), antialias=True)
