"""Lightning data module for images: three splits in memory, or mapped into it."""

from tempfile import TemporaryFile

import torch
from torch import Tensor

from dvae.data.base import TaskData
from dvae.data.binarize import binarize
from dvae.data.cache import map_images
from dvae.data.loader import Batch, BatchGroups, BatchOrder, ImageLoader
from dvae.data.sources.base import Source
from dvae.errors import UserError
from dvae.randomness import keyed_generator

__all__ = ["SPLITS", "ImageDataModule"]

SPLITS = ("train", "val", "test")
"""Training images, the source's validation images or the held-out end of the training file, and
test images."""

_CHUNK = 256
_MEAN_OF = 4096
"""Images of which the mean is taken where they are mapped into memory."""


class ImageDataModule(TaskData):
    """Splits the images of a source, binarizes them and serves batches.

    Batches come from the training device where all images fit there, and otherwise from memory or
    from files that are mapped into it, which a thread reads ahead.

    Validation and test images are binarized once, from a fixed seed: they are the same in every
    process and run. Training images are binarized once with "fixed", and anew for every batch with
    "dynamic". With "none", no image is binarized.

    Args:
        source: Where the images come from.
        binarization: "dynamic", "fixed" or "none".
        shift: Most pixels by which training images are moved at random, anew for every batch; 0
            leaves them where they are.
        validation: Images at the end of the training file that are held out, where the source has
            no validation images: a count (int) or a fraction (float). With 0, training uses all
            images, and no model is selected by validation.
        batch_size: Images in a training batch, over all processes together.
        eval_batch_size: Images in a batch of validation and test; no metric depends on it.
        seed: Seed of the order of batches and of dynamic binarization.
        steps_per_call: Training batches in each list that the training loader yields.
        limit_train_batches: Limit on the training batches of an epoch: a count (int) or a fraction
            (float).
        limit_eval_batches: Limit on the batches of validation and test, likewise.

    Raises:
        UserError: If the images cannot be loaded.
    """

    def __init__(
        self,
        source: Source,
        *,
        binarization: str,
        shift: int,
        validation: int | float,
        batch_size: int,
        eval_batch_size: int,
        seed: int,
        steps_per_call: int = 1,
        limit_train_batches: int | float = 1.0,
        limit_eval_batches: int | float = 1.0,
    ) -> None:
        super().__init__()
        self.source = source
        self.binarization = binarization
        self.shift = shift
        self.validation = validation
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.seed = seed
        self.steps_per_call = steps_per_call
        self.limit_train_batches = limit_train_batches
        self.limit_eval_batches = limit_eval_batches
        self._splits: dict[str, Tensor] = {}
        self._device = torch.device("cpu")

    @property
    def validates(self) -> bool:
        """Whether there are validation images to select models by."""
        return self.validation > 0

    @property
    def shades(self) -> bool:
        """Whether images are not binarized."""
        return self.binarization == "none"

    def check_processes(self, world_size: int) -> None:
        """Checks that the processes can share each batch evenly.

        Raises:
            UserError: If the batch size is not a multiple of the number of processes.
        """
        if self.batch_size % world_size:
            raise UserError(
                f"data.batch_size: expected a multiple of the {world_size} processes that share "
                f"it, found {self.batch_size}"
            )

    def prepare_data(self) -> None:
        """Unpacks, downloads or decodes the files."""
        self.source.prepare()

    def setup(self, stage: str | None = None) -> None:
        """Loads the splits, and moves them to the training device if they fit there."""
        if not self._splits:
            self._splits = self._load_splits()
        if self.trainer:
            self._device = self.trainer.strategy.root_device
        if _fits(sum(images.numel() for images in self._splits.values()), self._device):
            self._splits = {
                split: images.to(self._device) for split, images in self._splits.items()
            }

    def images(self, split: str) -> Tensor:
        """The uint8 images of a split, (M, C, H, W), after any binarization that is done once."""
        if not self._splits:
            self.setup()
        return self._splits[split]

    def labels(self, split: str) -> Tensor:
        """Classes of the images of a split, int64, (M,), on the device of the images.

        Raises:
            UserError: If the images have no labels.
        """
        images = self.images(split)
        training = split == "train" or (split == "val" and self.validates)
        labels = self.source.read_labels(train=training)
        if training and self.validates:
            first = len(labels) - self.held_out(len(labels))
            labels = labels[:first] if split == "train" else labels[first:]
        return labels.to(images.device)

    def pixel_mean(self) -> Tensor:
        """Mean training image in [0, 1], (C, H, W), on the CPU.

        Where images are mapped into memory, it is the mean of some, evenly spaced.
        """
        images = self.images("train")
        if self.source.mapped:
            images = images[:: -(-len(images) // _MEAN_OF)]
        total = sum(part.sum(0, dtype=torch.int64) for part in images.split(_CHUNK))
        return (total / (255 * len(images))).cpu()

    def steps_per_epoch(self) -> int:
        """Training batches in an epoch.

        Raises:
            UserError: If the training images do not fill one batch.
        """
        steps = self.train_dataloader().num_batches
        if not steps:
            raise UserError(
                f"data.batch_size: expected at most the {len(self.images('train'))} training "
                f"images, found {self.batch_size}"
            )
        return steps

    def train_dataloader(self) -> BatchGroups:
        """Lists of shuffled training batches, all of the same size."""
        return BatchGroups(self._train_loader(), self.steps_per_call)

    def _train_loader(self) -> ImageLoader:
        rank, world_size = self._process()
        sampler = BatchOrder(
            len(self.images("train")),
            max(1, self.batch_size // world_size),
            seed=self.seed,
            shuffle=True,
            limit=self.limit_train_batches,
            rank=rank,
            world_size=world_size,
        )
        dynamic = self.binarization == "dynamic"
        return self._loader(self.images("train"), sampler, dynamic, self.shift)

    def eval_dataloader(self, split: str) -> ImageLoader:
        """Batches of a split in the order of the file; "dynamic" binarizes only once here."""
        rank, world_size = self._process()
        images = self.images(split)
        if split == "train" and self.binarization == "dynamic":
            images = self._binarize_once(images, split)
        sampler = BatchOrder(
            len(images),
            self.eval_batch_size,
            limit=self.limit_eval_batches,
            rank=rank,
            world_size=world_size,
        )
        return self._loader(images, sampler)

    def _loader(
        self, images: Tensor, sampler: BatchOrder, dynamic: bool = False, shift: int = 0
    ) -> ImageLoader:
        elsewhere = images.device != self._device or self.source.mapped
        ahead = elsewhere and images.device.type == "cpu"
        return ImageLoader(
            images,
            sampler,
            dynamic=dynamic,
            shift=shift,
            device=self._device,
            read_ahead=ahead,
        )

    def val_dataloader(self) -> ImageLoader:
        """Batches of the validation images."""
        return self.eval_dataloader("val")

    def test_dataloader(self) -> ImageLoader:
        """Batches of the test images."""
        return self.eval_dataloader("test")

    def transfer_batch_to_device(
        self, batch: Batch | list[Batch], device: torch.device, dataloader_idx: int
    ) -> Batch | list[Batch]:
        """Moves batches to a device, without Lightning's slow search for tensors in them."""
        return batch.to(device) if isinstance(batch, Batch) else [one.to(device) for one in batch]

    def _process(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _binarize_once(self, images: Tensor, split: str) -> Tensor:
        generator = keyed_generator(f"binarization of {split}")
        if not self.source.mapped or images.device.type != "cpu":
            return binarize(images.cpu(), generator).to(images.device)
        # A file without a name: the system removes it when the process ends.
        with TemporaryFile(dir=self.source.root) as file:
            for part in images.split(_CHUNK):
                file.write(binarize(part, generator).numpy().tobytes())
            file.flush()
            return map_images(file, images.shape)

    def held_out(self, count: int) -> int:
        """How many of so many training images are held out at their end.

        Raises:
            UserError: If no others are left.
        """
        share = self.validation
        held_out = share if isinstance(share, int) else max(share > 0, round(share * count))
        if held_out >= count:
            raise UserError(
                f"data.validation: expected fewer than the {count} training images, "
                f"found {self.validation}"
            )
        return held_out

    def _load_splits(self) -> dict[str, Tensor]:
        train, test = self.source.load(train=True), self.source.load(train=False)
        val = self.source.load_validation()
        if val is None:
            held_out = self.held_out(len(train))
            train, val = train[: len(train) - held_out], train[len(train) - held_out :]
            val = val if held_out else test
        splits = {"train": train, "val": val, "test": test}
        if self.binarization == "none":
            return splits
        if self.binarization == "dynamic":
            once = {split: self._binarize_once(splits[split], split) for split in ("val", "test")}
            return splits | once
        return {split: self._fixed(images, split) for split, images in splits.items()}

    def _fixed(self, images: Tensor, split: str) -> Tensor:
        published = self.source.read_binarized(split)
        if published is None:
            return self._binarize_once(images, split)
        if len(published) != len(images):
            raise UserError(
                f"data={self.source.name}: expected {len(images)} images in the published "
                f"binarization of the split {split} for data.validation={self.validation}, found "
                f"{len(published)}"
            )
        return published


def _fits(num_bytes: int, device: torch.device) -> bool:
    """Whether the data take at most half of a GPU's free memory; always true for a CPU."""
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return num_bytes <= free // 2
