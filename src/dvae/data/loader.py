"""Batches by index selection from one tensor in memory."""

from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from dvae.data.binarize import redraw, to_unit
from dvae.errors import UserError
from dvae.randomness import keyed_generator, keyed_seed

__all__ = ["Batch", "BatchGroups", "BatchOrder", "Batches", "ImageLoader"]


class Batch(NamedTuple):
    """Images and their places in the split.

    Attributes:
        images: float32 in [0, 1], (B, C, H, W), on the device of the data.
        indices: int64, (B,), on the same device.
    """

    images: Tensor
    indices: Tensor

    def to(self, device: torch.device) -> "Batch":
        """The batch on a device; itself where it lies there."""
        if self.images.device == device:
            return self
        return Batch(*(tensor.to(device, non_blocking=True) for tensor in self))


class BatchOrder:
    """The order of batches: a pure function of seed, epoch and process.

    Each process gets every `world_size`-th entry of one permutation, so that no image is seen
    twice in an epoch. When shuffled, for training, all processes get the same number of whole
    batches; what is left over is left out of the epoch.

    Args:
        num_images: Images in the split.
        batch_size: Images in a batch of one process.
        seed: Seed of the permutations.
        shuffle: Whole batches in a random order; otherwise all images in the order of the file.
        limit: Batches of an epoch: at most a count, or a fraction of them in (0, 1].
        rank: This process.
        world_size: Number of processes.
    """

    def __init__(
        self,
        num_images: int,
        batch_size: int,
        *,
        seed: int = 0,
        shuffle: bool = False,
        limit: int | float = 1.0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.seed = seed
        self.epoch = 0
        self._num_images = num_images
        self._batch_size = batch_size
        self._shuffle = shuffle
        self._limit = limit
        self._rank = rank
        self._world_size = world_size

    def set_epoch(self, epoch: int) -> None:
        """Chooses the permutation; Lightning calls it before each epoch."""
        self.epoch = epoch

    def key(self, number: int) -> tuple[int, int, int]:
        """Seed, epoch and number of a batch among those of all processes: what keys its noise."""
        return self.seed, self.epoch, number * self._world_size + self._rank

    def _own(self, order: Tensor) -> Tensor:
        even = len(order) // self._world_size * self._world_size
        return order[self._rank : even if self._shuffle else None : self._world_size]

    def __iter__(self) -> Iterator[Tensor]:
        if self._shuffle:
            generator = keyed_generator(self.seed, self.epoch)
            order = torch.randperm(self._num_images, generator=generator)
        else:
            order = torch.arange(self._num_images)
        yield from self._own(order).split(self._batch_size)[: len(self)]

    def __len__(self) -> int:
        own = len(self._own(torch.empty(self._num_images)))
        batches = own // self._batch_size if self._shuffle else -(-own // self._batch_size)
        if isinstance(self._limit, int):
            return min(batches, self._limit)
        return min(batches, max(1, int(batches * self._limit)))


class ImageLoader:
    """Iterates over batches of a split that lies in memory, on the device where it lies.

    Args:
        images: The split, uint8, (M, C, H, W).
        sampler: The order of batches.
        dynamic: Draws binary images anew for each batch, keyed by seed, epoch and batch; images
            are only converted otherwise.
    """

    def __init__(self, images: Tensor, sampler: BatchOrder, *, dynamic: bool = False) -> None:
        # Lightning calls `sampler.set_epoch` before each epoch, and asks for both.
        self.sampler = sampler
        self.batch_sampler = None
        self._images = images
        self._dynamic = dynamic

    def __iter__(self) -> Iterator[Batch]:
        return self.batches()

    def batches(self, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from one of them on."""
        generator = torch.Generator(self._images.device)
        for number, order in islice(enumerate(self.sampler), start, None):
            indices = order.to(self._images.device, non_blocking=True)
            images = self._images.index_select(0, indices)
            if self._dynamic:
                generator.manual_seed(keyed_seed(*self.sampler.key(number)))
                images = redraw(images, generator)
            else:
                images = to_unit(images)
            yield Batch(images, indices)

    def __len__(self) -> int:
        return len(self.sampler)


class Batches(Protocol):
    """What can be iterated over in groups, from any place on."""

    @property
    def sampler(self) -> Any:
        """What chooses the order of an epoch; Lightning tells it the epoch."""

    def batches(self, start: int = 0) -> Iterator[Any]:
        """The batches of an epoch from one of them on."""

    def __len__(self) -> int: ...


class BatchGroups:
    """Iterates over lists of consecutive batches: several optimizer steps in one call.

    Args:
        loader: The batches.
        size: Batches of a list; the last one of an epoch may be shorter.
    """

    def __init__(self, loader: Batches, size: int) -> None:
        # As in `ImageLoader`.
        self.sampler = loader.sampler
        self.batch_sampler = None
        self.size = size
        self._loader = loader
        self._done = 0

    @property
    def num_batches(self) -> int:
        """Batches of an epoch."""
        return len(self._loader)

    def state_dict(self) -> dict[str, int]:
        """Where an epoch stands: Lightning keeps it in checkpoints."""
        return {"done": self._done, "size": self.size, "batches": self.num_batches}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Lets the next epoch begin where the state was taken.

        Raises:
            UserError: If the epoch was divided otherwise.
        """
        done = state["done"] % max(1, -(-state["batches"] // max(1, state["size"])))
        if done and state != self.state_dict() | {"done": state["done"]}:
            raise UserError(
                f"resume: expected, in the middle of an epoch, {state['batches']} batches, "
                f"{state['size']} a call (data.batch_size, trainer.steps_per_call), "
                f"found {self.num_batches} and {self.size}"
            )
        self._done = done

    def __iter__(self) -> Iterator[list[Any]]:
        self._done %= len(self)
        batches = self._loader.batches(self._done * self.size)
        while group := list(islice(batches, self.size)):
            self._done += 1
            yield group

    def __len__(self) -> int:
        return -(-self.num_batches // self.size)
