"""Batches, selected by index from one tensor."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from dvae.data.augmentation import shift
from dvae.data.binarize import redraw, to_unit
from dvae.data.cache import prefetch
from dvae.errors import UserError
from dvae.randomness import keyed_generator, keyed_seed

__all__ = ["Batch", "BatchGroups", "BatchOrder", "Batches", "ImageLoader"]

_AHEAD = 3
"""Batches that a thread reads before they are used."""


class Batch(NamedTuple):
    """Images and their indices in the split.

    Attributes:
        images: float32 in [0, 1], (B, C, H, W), on the device of the data.
        indices: int64, (B,), on the same device.
    """

    images: Tensor
    indices: Tensor

    def to(self, device: torch.device) -> "Batch":
        """The batch on a device; the same object if it is already there."""
        if self.images.device == device:
            return self
        return Batch(*(tensor.to(device, non_blocking=True) for tensor in self))


class BatchOrder:
    """The order of batches: a pure function of seed, epoch and process.

    Each process gets every `world_size`-th entry of one permutation, so that no image is seen
    twice in an epoch. With `shuffle`, for training, all processes get the same number of full
    batches, and the epoch leaves out the remaining images.

    Args:
        num_images: Images in the split.
        batch_size: Images in a batch of one process.
        seed: Seed of the permutations.
        shuffle: Whether to yield full batches in random order; otherwise all images are yielded,
            in the order of the file.
        limit: Limit on the batches of an epoch: a count (int) or a fraction in (0, 1] (float).
        rank: Index of this process.
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
        """Key of a batch's noise: seed, epoch and the batch's number among all processes."""
        return self.seed, self.epoch, number * self._world_size + self._rank

    def _own(self, order: Tensor) -> Tensor:
        even = len(order) // self._world_size * self._world_size
        return order[self._rank : even if self._shuffle else None : self._world_size]

    def __iter__(self) -> Iterator[Tensor]:
        if self._shuffle:
            generator = keyed_generator("order", self.seed, self.epoch)
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
    """Iterates over batches of a split.

    Args:
        images: The split, uint8, (M, C, H, W).
        sampler: The order of batches.
        dynamic: Whether to draw binary images anew for each batch, keyed by seed, epoch and batch.
            Otherwise images are only converted to float.
        shift: Most pixels by which images are moved at random, keyed likewise.
        device: Device of the batches.
        read_ahead: Whether a thread reads the next images, which are on the CPU or on the disk,
            while a batch is used.
    """

    def __init__(
        self,
        images: Tensor,
        sampler: BatchOrder,
        *,
        dynamic: bool = False,
        shift: int = 0,
        device: torch.device | None = None,
        read_ahead: bool = False,
    ) -> None:
        # Lightning reads both attributes, and calls `sampler.set_epoch` before each epoch.
        self.sampler = sampler
        self.batch_sampler = None
        self._images = images
        self._dynamic = dynamic
        self._shift = shift
        self._device = device or images.device
        self._read_ahead = read_ahead

    def __iter__(self) -> Iterator[Batch]:
        return self.batches()

    def batches(self, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, from number `start` on."""
        generator = torch.Generator(self._device)
        orders = islice(self.sampler, start, None)
        parts = _ahead(self._read, orders) if self._read_ahead else map(self._select, orders)
        for number, part in enumerate(parts, start):
            images, indices = (tensor.to(self._device, non_blocking=True) for tensor in part)
            if self._shift:
                key = self.sampler.key(number)
                images = shift(images, self._shift, keyed_generator("shift", *key))
            if self._dynamic:
                generator.manual_seed(keyed_seed("binarization", *self.sampler.key(number)))
                images = redraw(images, generator)
            else:
                images = to_unit(images)
            yield Batch(images, indices)

    def _select(self, order: Tensor) -> tuple[Tensor, Tensor]:
        indices = order.to(self._images.device, non_blocking=True)
        return self._images.index_select(0, indices), indices

    def _read(self, order: Tensor) -> tuple[Tensor, Tensor]:
        prefetch(self._images, order.tolist())
        # Unlike torch, NumPy uses no further threads, which would slow down the training step.
        images = torch.from_numpy(self._images.numpy().take(order.numpy(), axis=0))
        return images.pin_memory() if self._device.type == "cuda" else images, order

    def __len__(self) -> int:
        return len(self.sampler)


_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def _ahead(function: Callable[[_Item], _Result], items: Iterator[_Item]) -> Iterator[_Result]:
    """Like `map`, but a thread computes the next results meanwhile."""
    with ThreadPoolExecutor(1) as thread:
        pending = deque(thread.submit(function, item) for item in islice(items, _AHEAD))
        try:
            while pending:
                yield pending.popleft().result()
                pending.extend(thread.submit(function, item) for item in islice(items, 1))
        finally:
            thread.shutdown(cancel_futures=True)


class Batches(Protocol):
    """A loader that can start at any batch of an epoch; see `BatchGroups`."""

    @property
    def sampler(self) -> Any:
        """The order of batches; Lightning calls its `set_epoch` before each epoch."""

    def batches(self, start: int = 0) -> Iterator[Any]:
        """The batches of an epoch, from number `start` on."""

    def __len__(self) -> int: ...


class BatchGroups:
    """Iterates over lists of consecutive batches: several optimizer steps in one call.

    Args:
        loader: The batches.
        size: Batches in a list; the last list of an epoch may be shorter.
    """

    def __init__(self, loader: Batches, size: int) -> None:
        # Lightning reads both: see `ImageLoader`.
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
        """The position in the epoch, which Lightning saves in checkpoints."""
        return {"done": self._done, "size": self.size, "batches": self.num_batches}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Starts the next epoch at the saved position.

        Raises:
            UserError: If the saved epoch was divided into other batches or lists.
        """
        done = state["done"] % max(1, -(-state["batches"] // max(1, state["size"])))
        if done and state != self.state_dict() | {"done": state["done"]}:
            raise UserError(
                f"resume: expected {state['batches']} batches per epoch and {state['size']} per "
                "call (data.batch_size, trainer.steps_per_call), as the checkpoint was saved in "
                f"the middle of an epoch, found {self.num_batches} and {self.size}"
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
