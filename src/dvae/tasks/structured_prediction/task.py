"""The task of predicting the lower half of an image from the upper half."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from dvae.tasks.base import Drawing
from dvae.tasks.images import ImageTask, first_images
from dvae.tasks.options import SampleConfig
from dvae.tasks.structured_prediction.config import (
    StoredStructuredPredictionConfig,
    StructuredPredictionConfig,
)

if TYPE_CHECKING:
    from torch import Generator

    from dvae.data.module import ImageDataModule
    from dvae.tasks.structured_prediction.module import StructuredPredictionModule

__all__ = ["TASK", "StructuredPredictionTask"]


class StructuredPredictionTask(
    ImageTask[
        StoredStructuredPredictionConfig, StructuredPredictionConfig, "StructuredPredictionModule"
    ]
):
    """See `model.py` and `module.py` beside this file."""

    stored = StoredStructuredPredictionConfig
    config = StructuredPredictionConfig
    # The bound that training maximises; the bound with one draw would underrate a network that was
    # trained with several draws.
    selected_by = "val/bound"
    drawings: ClassVar = {"completions": 16}

    def module(
        self, config: StructuredPredictionConfig, data: ImageDataModule
    ) -> StructuredPredictionModule:
        """A new model, whose output starts at the mean training image."""
        from dvae.tasks.structured_prediction.module import StructuredPredictionModule
        from dvae.training.settings import Evaluation

        return StructuredPredictionModule(
            config.build_model(data.pixel_mean()),
            num_samples=config.objective.num_samples,
            training=config.build_training(data.steps_per_epoch() * config.trainer.max_epochs),
            evaluation=Evaluation(num_samples=config.test_samples),
            config=config.model_dump(),
        )

    def restore(self, stored: StoredStructuredPredictionConfig) -> StructuredPredictionModule:
        """A model of the same sizes, without the checkpoint's weights."""
        from dvae.tasks.structured_prediction.module import StructuredPredictionModule

        # `num_samples` is for training only; an evaluation sets its own number.
        return StructuredPredictionModule(
            stored.build_model(), num_samples=1, config=stored.model_dump()
        )

    def draw(
        self,
        module: StructuredPredictionModule,
        data: ImageDataModule,
        what: str,
        config: SampleConfig,
        generator: Generator,
    ) -> Drawing:
        """Completions; see `Task.draw`."""
        from dvae.data.binarize import to_unit
        from dvae.tasks.structured_prediction.pictures import completions

        count = config.num_images or self.drawings[what]
        images = first_images(data, config.split or "test", count)
        return Drawing(*completions(module.network, to_unit(images.to(module.device)), generator))


TASK = StructuredPredictionTask()
