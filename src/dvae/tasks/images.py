"""Base classes of tasks that learn from images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar

from pydantic import model_validator

from dvae.data.options import ImageDataOptions
from dvae.data.sources import SOURCES, AnyImageData
from dvae.errors import UserError
from dvae.likelihoods import AnyLikelihood
from dvae.likelihoods.bernoulli_options import BernoulliOptions
from dvae.options import Size, parse
from dvae.tasks.base import Module, Task
from dvae.tasks.options import EncodeConfig, EvaluateConfig, FromCheckpointConfig
from dvae.training.config import LayerRunConfig, RunConfig, StoredLayerConfig

if TYPE_CHECKING:
    from torch import Tensor

    from dvae.data.module import ImageDataModule

__all__ = [
    "ImageRunConfig",
    "ImageTask",
    "StoredImageConfig",
    "build_data",
    "check_early_stopping",
    "first_images",
]

_EVAL_BATCH_SIZE = 100


class StoredImageConfig(StoredLayerConfig):
    """The part from which the checkpoint of an image model is rebuilt."""

    data: AnyImageData
    # The oldest checkpoints name no likelihood; all of them are Bernoulli.
    likelihood: AnyLikelihood = BernoulliOptions()

    @model_validator(mode="after")
    def _check_pixels(self) -> Self:
        self.likelihood.check_data(self.data.image_shape[0], self.data.binarization)
        return self


class ImageRunConfig(StoredImageConfig, LayerRunConfig):
    """The configuration of any run on images.

    Attributes:
        test_samples: Samples of the importance-weighted bound in the final test; 0 for no bound.
    """

    test_samples: Size = 100

    @model_validator(mode="after")
    def _check_early_stopping(self) -> Self:
        check_early_stopping(self, self.data)
        return self


StoredImages = TypeVar("StoredImages", bound=StoredImageConfig)
ImageRun = TypeVar("ImageRun", bound=ImageRunConfig)


class ImageTask(Task[StoredImages, ImageRun, "ImageDataModule", Module]):
    """A task whose data are the images of a source.

    Attributes:
        sources: Name → options of the sources that the task accepts.
    """

    sources: Mapping[str, type[ImageDataOptions]] = SOURCES
    options = frozenset(
        {
            "data.name",
            "data.root",
            "data.train",
            "data.val",
            "data.test",
            "data.binarization",
            "data.validation",
            "relaxed_temperature",
            "num_samples",
            "batch_size",
            "max_decodes",
            "split",
        }
    )

    def data(self, config: ImageRun) -> ImageDataModule:
        """The images of a run."""
        return build_data(config.data, config)

    def stored_data(self, stored: StoredImages, config: FromCheckpointConfig) -> ImageDataModule:
        """The images of the checkpoint's source, or of another source with the same image shape.

        Raises:
            UserError: If the images have another shape, or other pixels than the checkpoint's
                likelihood describes.
        """
        changed = config.data.model_dump(exclude_none=True)
        if isinstance(config, EvaluateConfig | EncodeConfig):
            changed["eval_batch_size"] = config.batch_size or _EVAL_BATCH_SIZE
        return self.data_options(stored, changed).build(config.data_dir, stored.seed)

    def data_options(self, stored: StoredImages, changed: Mapping[str, Any]) -> ImageDataOptions:
        """The options of a checkpoint's images, some of them changed.

        Raises:
            UserError: See `stored_data`.
        """
        name = changed.get("name", stored.data.name)
        kind = self.check_source(name, stored)
        for key in changed.keys() - kind.model_fields.keys():
            raise UserError(f"data.{key}: no such key with data.name={name}")
        shape, fields = stored.data.image_shape, type(stored.data).model_fields
        # What both sources have; in some, `validation` is of another kind.
        shared = {
            key: value
            for key, value in stored.data.model_dump().items()
            if key in kind.model_fields
            and kind.model_fields[key].annotation == fields[key].annotation
        }
        channels = {"channels": shape[0]} if "channels" in kind.model_fields else {}
        options = parse(kind, {**channels, **shared, **changed})
        if options.image_shape != shape:
            raise UserError(
                f"data.name: expected images of shape {shape}, as in the checkpoint, found "
                f"{options.image_shape} with {options.name}"
            )
        stored.likelihood.check_data(shape[0], options.binarization)
        return options

    def check_source(self, name: str, stored: StoredImages) -> type[ImageDataOptions]:
        """The options class of a source, for use with a checkpoint.

        Raises:
            UserError: If the checkpoint cannot be used with this source.
        """
        return self.sources[name]


def build_data(options: ImageDataOptions, config: RunConfig) -> ImageDataModule:
    """The images of a run.

    Args:
        options: Their options.
        config: The configuration of the run.
    """
    trainer = config.trainer
    return options.build(
        config.paths.data_dir,
        config.seed,
        steps_per_call=trainer.steps_per_call,
        limit_train_batches=trainer.limit_train_batches,
        limit_eval_batches=trainer.limit_eval_batches,
    )


def check_early_stopping(config: RunConfig, data: ImageDataOptions) -> None:
    """Checks that a run that stops early has validation images.

    Raises:
        UserError: If it has none.
    """
    if config.callbacks.early_stopping is not None and data.validation == 0:
        raise UserError(
            "callbacks.early_stopping: expected null with data.validation=0, found "
            f"{config.callbacks.early_stopping}; it would stop by the test images"
        )


def first_images(data: ImageDataModule, split: str, count: int, images_each: int = 1) -> Tensor:
    """The first images of a split, uint8 (M, C, H, W).

    Args:
        data: The images.
        split: The split.
        count: Number of pictures.
        images_each: Images that each picture needs.

    Raises:
        UserError: If the split has fewer images.
    """
    images, needed = data.images(split), count * images_each
    if needed > len(images):
        raise UserError(
            f"num_images: expected at most the {len(images)} images of the split {split}, "
            f"found {count}" + (" pairs" if images_each > 1 else "")
        )
    return images[:needed]
