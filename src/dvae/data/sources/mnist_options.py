"""Options of the source in `mnist.py`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dvae.data.options import ImageDataOptions, ImageSize

if TYPE_CHECKING:
    from dvae.data.sources.base import Source

__all__ = ["MNISTOptions"]


class MNISTOptions(ImageDataOptions):
    """See `dvae.data.sources.mnist.MNIST`."""

    name: Literal["mnist"] = "mnist"
    size: ImageSize = 28
    num_classes = 10

    def build_source(self, root: Path) -> Source:
        """Builds the source; see `ImageDataOptions.build_source`."""
        from dvae.data.sources.mnist import MNIST

        return MNIST(self.name, root, self.image_shape)
