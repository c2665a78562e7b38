"""Options of the sources in `torchvision.py`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dvae.data.options import Binarization, ImageDataOptions, ImageSize
from dvae.options import Share

if TYPE_CHECKING:
    from dvae.data.sources.base import Source

__all__ = [
    "CIFAR10Options",
    "CIFAR100Options",
    "EMNISTOptions",
    "FashionMNISTOptions",
    "KMNISTOptions",
    "OmniglotOptions",
    "SVHNOptions",
]


class FashionMNISTOptions(ImageDataOptions):
    """See `dvae.data.sources.torchvision.FashionMNIST`."""

    name: Literal["fashion_mnist"] = "fashion_mnist"
    size: ImageSize = 28
    num_classes = 10

    def build_source(self, root: Path) -> Source:
        """Builds the source; see `ImageDataOptions.build_source`."""
        from dvae.data.sources.torchvision import FashionMNIST

        return FashionMNIST(self.name, root, self.image_shape)


class KMNISTOptions(ImageDataOptions):
    """See `dvae.data.sources.torchvision.KMNIST`."""

    name: Literal["kmnist"] = "kmnist"
    size: ImageSize = 28
    num_classes = 10

    def build_source(self, root: Path) -> Source:
        """Builds the source; see `ImageDataOptions.build_source`."""
        from dvae.data.sources.torchvision import KMNIST

        return KMNIST(self.name, root, self.image_shape)


class EMNISTOptions(ImageDataOptions):
    """See `dvae.data.sources.torchvision.EMNIST`."""

    name: Literal["emnist"] = "emnist"
    size: ImageSize = 28
    num_classes = 47

    def build_source(self, root: Path) -> Source:
        """Builds the source; see `ImageDataOptions.build_source`."""
        from dvae.data.sources.torchvision import EMNIST

        return EMNIST(self.name, root, self.image_shape)


class OmniglotOptions(ImageDataOptions):
    """See `dvae.data.sources.torchvision.Omniglot`."""

    name: Literal["omniglot"] = "omniglot"
    size: ImageSize = 28
    validation: Share = 2000

    def build_source(self, root: Path) -> Source:
        """Builds the source; see `ImageDataOptions.build_source`."""
        from dvae.data.sources.torchvision import Omniglot

        return Omniglot(self.name, root, self.image_shape)


class _ColourOptions(ImageDataOptions):
    """Photographs of 32 × 32 pixels."""

    size: ImageSize = 32
    binarization: Binarization = "none"
    validation: Share = 5000
    channels = 3


class CIFAR10Options(_ColourOptions):
    """See `dvae.data.sources.torchvision.CIFAR10`."""

    name: Literal["cifar10"] = "cifar10"
    num_classes = 10

    def build_source(self, root: Path) -> Source:
        """Builds the source; see `ImageDataOptions.build_source`."""
        from dvae.data.sources.torchvision import CIFAR10

        return CIFAR10(self.name, root, self.image_shape)


class CIFAR100Options(_ColourOptions):
    """See `dvae.data.sources.torchvision.CIFAR100`."""

    name: Literal["cifar100"] = "cifar100"
    num_classes = 100

    def build_source(self, root: Path) -> Source:
        """Builds the source; see `ImageDataOptions.build_source`."""
        from dvae.data.sources.torchvision import CIFAR100

        return CIFAR100(self.name, root, self.image_shape)


class SVHNOptions(_ColourOptions):
    """See `dvae.data.sources.torchvision.SVHN`."""

    name: Literal["svhn"] = "svhn"
    num_classes = 10

    def build_source(self, root: Path) -> Source:
        """Builds the source; see `ImageDataOptions.build_source`."""
        from dvae.data.sources.torchvision import SVHN

        return SVHN(self.name, root, self.image_shape)
