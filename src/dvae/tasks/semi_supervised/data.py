"""Training images of which only a few have labels."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dvae.data.augmentation import shift
from dvae.data.binarize import redraw, to_unit
from dvae.data.loader import BatchGroups, BatchOrder, ImageLoader
from dvae.data.module import ImageDataModule
from dvae.data.sources.base import Source
from dvae.errors import UserError
from dvae.randomness import keyed_generator, keyed_seed

__all__ = ["LabelledBatch", "LabelledImageDataModule", "draw_labelled"]


class LabelledBatch(NamedTuple):
    """A batch of U images without labels, followed by L images with labels.

    Attributes:
        images: float32 in [0, 1], (U + L, C, H, W).
        indices: Indices in the split, (U + L,), int64.
        labels: Classes of the last L images, (L,), int64.
    """

    images: Tensor
    indices: Tensor
    labels: Tensor

    def to(self, device: torch.device) -> "LabelledBatch":
        """The batch on a device; the same object if it is already there."""
        if self.images.device == device:
            return self
        return LabelledBatch(*(tensor.to(device, non_blocking=True) for tensor in self))


def draw_labelled(labels: Tensor, count: int, seed: int) -> Tensor:
    """Draws the same number of images from each class; a pure function of its arguments.

    Args:
        labels: Classes of all images, (M,).
        count: Total number of images to draw, a multiple of the number of classes.
        seed: Seed of the draw.

    Returns:
        Indices of the images, (count,), sorted by class.

    Raises:
        UserError: If the count is not such a multiple, or a class has too few images.
    """
    sizes = labels.bincount()
    each, rest = divmod(count, len(sizes))
    if rest or not 0 < each <= int(sizes.min()):
        raise UserError(
            f"data.num_labels: expected a multiple of the {len(sizes)} classes, at most "
            f"{len(sizes) * int(sizes.min())}, found {count}"
        )
    generator = keyed_generator("which labels", seed)
    order = torch.randperm(len(labels), generator=generator)
    return torch.cat([order[labels[order] == c][:each] for c in range(len(sizes))])


class _Mixed:
    """Iterates over unlabelled batches and adds labelled images to each.

    Args:
        loader: The unlabelled batches.
        images: The labelled images, uint8.
        indices: Their indices in the split.
        labels: Their classes.
        size: Labelled images in a batch, drawn without replacement with the key of the batch.
        dynamic: Whether each batch draws new binary images.
        shift: Most pixels by which images are moved at random.
    """

    def __init__(
        self,
        loader: ImageLoader,
        images: Tensor,
        indices: Tensor,
        labels: Tensor,
        size: int,
        dynamic: bool,
        shift: int,
    ) -> None:
        self.sampler: BatchOrder = loader.sampler
        self._loader = loader
        self._images = images
        self._indices = indices
        self._labels = labels
        self._size = size
        self._dynamic = dynamic
        self._shift = shift

    def batches(self, start: int = 0) -> Iterator[LabelledBatch]:
        """The batches of an epoch, beginning with number `start`."""
        device = self._images.device
        generator = torch.Generator(device)
        for number, batch in enumerate(self._loader.batches(start), start):
            key = self.sampler.key(number)
            labelled = keyed_generator("labelled order", *key)
            order = torch.randperm(len(self._labels), generator=labelled)
            chosen = order[: self._size].to(device)
            images = self._images[chosen]
            if self._shift:
                images = shift(images, self._shift, keyed_generator("labelled shift", *key))
            if self._dynamic:
                generator.manual_seed(keyed_seed("labelled binarization", *key))
                images = redraw(images, generator)
            else:
                images = to_unit(images)
            yield LabelledBatch(
                torch.cat([batch.images, images]),
                torch.cat([batch.indices, self._indices[chosen]]),
                self._labels[chosen],
            )

    def __len__(self) -> int:
        return len(self._loader)


class _Labelled:
    """Iterates over batches in which every image has a label.

    Args:
        loader: The batches.
        labels: Classes of all images of the split.
    """

    def __init__(self, loader: ImageLoader, labels: Tensor) -> None:
        # Lightning reads both attributes; see `ImageLoader`.
        self.sampler = loader.sampler
        self.batch_sampler = None
        self._loader = loader
        self._labels = labels

    def __iter__(self) -> Iterator[LabelledBatch]:
        for images, indices in self._loader:
            yield LabelledBatch(images, indices, self._labels[indices])

    def __len__(self) -> int:
        return len(self._loader)


class LabelledImageDataModule(ImageDataModule):
    """Training images of which a few have labels; all validation and test images have labels.

    A training batch has `batch_size` images from the whole training split, without labels, and
    `labelled_batch_size` of the labelled images.

    Args:
        source: Source of images and labels.
        num_labels: Labelled images, equally many per class, drawn by the seed.
        labelled_batch_size: Labelled images in a training batch, summed over all processes; all of
            them if there are fewer.
        **options: See `ImageDataModule`.

    Raises:
        UserError: If a value is out of range or the data are not available.
    """

    def __init__(
        self, source: Source, *, num_labels: int, labelled_batch_size: int, **options: Any
    ) -> None:
        super().__init__(source, **options)
        self.num_labels = num_labels
        self.labelled_batch_size = labelled_batch_size

    def labelled(self) -> Tensor:
        """Indices of the labelled training images, (num_labels,)."""
        return draw_labelled(self.labels("train").cpu(), self.num_labels, self.seed)

    def train_dataloader(self) -> BatchGroups:
        """Batches of unlabelled images, each followed by labelled images."""
        images, labels = self.images("train"), self.labels("train")
        chosen = self.labelled().to(images.device)
        _, world_size = self._process()
        mixed = _Mixed(
            self._train_loader(),
            images[chosen],
            chosen,
            labels[chosen],
            max(1, self.labelled_batch_size // world_size),
            self.binarization == "dynamic",
            self.shift,
        )
        return BatchGroups(mixed, self.steps_per_call)

    def eval_dataloader(self, split: str) -> Any:
        """Batches of a split with all labels, in file order."""
        return _Labelled(super().eval_dataloader(split), self.labels(split))

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        """Moves a batch, or each batch of a list, to the device."""
        return [one.to(device) for one in batch] if isinstance(batch, list) else batch.to(device)

    def _fixed(self, images: Tensor, split: str) -> Tensor:
        # The published binarization has no labels, so binarize the labelled source.
        return self._binarize_once(images, split)
