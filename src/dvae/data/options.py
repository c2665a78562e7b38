"""Base class of the options of sources of images."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from dvae.options import Count, Options, Share, Size

if TYPE_CHECKING:
    from dvae.data.module import ImageDataModule
    from dvae.data.sources.base import Source

__all__ = ["Binarization", "ImageDataOptions", "ImageSize"]

Binarization = Literal["dynamic", "fixed", "none"]
ImageSize = Count | Annotated[list[Count], Field(min_length=2, max_length=2)]


class ImageDataOptions(Options):
    """The options of images; see `dvae.data.module.ImageDataModule`.

    Attributes:
        name: Name of the source in configurations.
        size: Height and width of the images, in pixels: one number for both, or two.
        binarization: "dynamic" draws binary pixels anew for each batch, "fixed" once; "none" keeps
            grey or coloured ones.
        shift: Most pixels by which training images are moved at random, up or down and left or
            right, anew for each batch; 0 leaves them where they are.
        validation: Images at the end of the training file that are held out, a count or a fraction;
            0 trains on all, and validates on the test images.
        batch_size: Images in a training batch, over all processes together.
        eval_batch_size: Images in a batch of validation and test; no metric depends on it.
        channels: C; 1 unless a source says otherwise.
        num_classes: Number of classes, where images have labels.
    """

    name: str = ""
    size: ImageSize
    binarization: Binarization = "dynamic"
    shift: Size = 0
    validation: Share = 10_000
    batch_size: Annotated[int, Field(ge=2)] = 128
    eval_batch_size: Count = 1000

    # Without a value here, a source may also have it as a field.
    channels: ClassVar[int]
    num_classes: ClassVar[int | None] = None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        height, width = [self.size] * 2 if isinstance(self.size, int) else self.size
        return (getattr(self, "channels", 1), height, width)

    @abstractmethod
    def build_source(self, root: Path) -> Source:
        """Builds the source, whose files are in the data folder `root`."""

    def build(self, root: str | Path, seed: int, **loading: Any) -> ImageDataModule:
        """Builds the data module.

        Args:
            root: The data folder.
            seed: Seed of the order of batches and of dynamic binarization.
            **loading: `steps_per_call` and limits on batches; see `ImageDataModule`.
        """
        from dvae.data.module import ImageDataModule

        return ImageDataModule(
            self.build_source(Path(root)), seed=seed, **self.splitting(), **loading
        )

    def splitting(self) -> dict[str, Any]:
        """The options that `ImageDataModule` takes; the others are for the source."""
        names = ("binarization", "shift", "validation", "batch_size", "eval_batch_size")
        return {name: getattr(self, name) for name in names}
