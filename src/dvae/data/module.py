"""Lightning data module for images: three splits in memory."""

import torch
from torch import Tensor

from dvae.data.base import TaskData
from dvae.data.binarize import binarize, to_unit
from dvae.data.loader import Batch, BatchGroups, BatchOrder, ImageLoader
from dvae.data.sources.base import Source
from dvae.errors import UserError
from dvae.randomness import keyed_generator

__all__ = ["SPLITS", "ImageDataModule"]

SPLITS = ("train", "val", "test")
"""Training images, the held-out end of the training file, and the test file."""


class ImageDataModule(TaskData):
    """Splits the images of a source, binarizes them and serves batches from memory.

    Validation and test images are binarized once, from a fixed seed: they are the same in every
    process and run. Training images are binarized once with "fixed", and anew for every batch with
    "dynamic". With "none", no image is binarized.

    Args:
        source: Where the images come from.
        binarization: "dynamic", "fixed" or "none".
        validation: Images at the end of the training file that are held out; 0 trains on all, and
            validates on the test images.
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
        validation: int,
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
        self.validation = validation
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.seed = seed
        self.steps_per_call = steps_per_call
        self.limit_train_batches = limit_train_batches
        self.limit_eval_batches = limit_eval_batches
        self._splits: dict[str, Tensor] = {}

    @property
    def validates(self) -> bool:
        """Whether images are held out."""
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
        """Unpacks or downloads the files; Lightning calls it in one process only."""
        self.source.prepare()

    def setup(self, stage: str | None = None) -> None:
        """Loads the splits, and moves them to the training device if they fit there."""
        if not self._splits:
            self._splits = self._load_splits()
        device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        if _fits(sum(images.numel() for images in self._splits.values()), device):
            self._splits = {split: images.to(device) for split, images in self._splits.items()}

    def images(self, split: str) -> Tensor:
        """The uint8 images of a split, (M, C, H, W), after any binarization that is done once."""
        if not self._splits:
            self.setup()
        return self._splits[split]

    def pixel_mean(self) -> Tensor:
        """Mean training image in [0, 1], (C, H, W), on the CPU."""
        return to_unit(self.images("train")).mean(0).cpu()

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
        return ImageLoader(self.images("train"), sampler, dynamic=dynamic)

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
        return ImageLoader(images, sampler)

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
        return binarize(images.cpu(), generator).to(images.device)

    def _load_splits(self) -> dict[str, Tensor]:
        training, test = self.source.load(train=True), self.source.load(train=False)
        if self.validation >= len(training):
            raise UserError(
                f"data.validation: expected fewer than the {len(training)} training images, "
                f"found {self.validation}"
            )
        held_out = len(training) - self.validation
        val = training[held_out:] if self.validation else test
        splits = {"train": training[:held_out], "val": val, "test": test}
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
