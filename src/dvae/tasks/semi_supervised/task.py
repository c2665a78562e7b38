"""The task of classifying with a few labels: the class of an image is a categorical latent."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from dvae.data.options import ImageDataOptions
from dvae.errors import UserError
from dvae.tasks.base import Drawing
from dvae.tasks.images import ImageTask
from dvae.tasks.options import SampleConfig
from dvae.tasks.semi_supervised.config import SemiSupervisedConfig, StoredSemiSupervisedConfig
from dvae.tasks.semi_supervised.data_options import LABELLED

if TYPE_CHECKING:
    from torch import Generator

    from dvae.data.module import ImageDataModule
    from dvae.tasks.semi_supervised.module import SemiSupervisedModule

__all__ = ["TASK", "SemiSupervisedTask"]


class SemiSupervisedTask(
    ImageTask[StoredSemiSupervisedConfig, SemiSupervisedConfig, "SemiSupervisedModule"]
):
    """See `model.py` and `module.py` beside this file.

    The bound on validation images selects checkpoints, because it uses no labels.
    """

    stored = StoredSemiSupervisedConfig
    config = SemiSupervisedConfig
    sources = LABELLED
    drawings: ClassVar = {"classes": 10}
    options = ImageTask.options - {"relaxed_temperature", "split"}

    def check_source(self, name: str, stored: StoredSemiSupervisedConfig) -> type[ImageDataOptions]:
        """Refuses a source without labels or with too many classes; see `ImageTask`."""
        fitting = [
            other
            for other, source in self.sources.items()
            if (source.num_classes or 0) <= stored.model.num_classes
        ]
        if name not in fitting:
            raise UserError(
                f"data.name: expected one of {', '.join(fitting)} with a checkpoint of "
                f"task={self.name} and {stored.model.num_classes} classes, found {name}"
            )
        return self.sources[name]

    def module(self, config: SemiSupervisedConfig, data: ImageDataModule) -> SemiSupervisedModule:
        """A new model, whose output starts at the mean training image."""
        from dvae.tasks.semi_supervised.module import SemiSupervisedModule
        from dvae.training.settings import Evaluation

        return SemiSupervisedModule(
            config.build_model(data.pixel_mean()),
            classification_weight=config.objective.classification_weight,
            deformation=config.objective.deformation,
            training=config.build_training(data.steps_per_epoch() * config.trainer.max_epochs),
            evaluation=Evaluation(num_samples=config.test_samples),
            config=config.model_dump(),
        )

    def restore(self, stored: StoredSemiSupervisedConfig) -> SemiSupervisedModule:
        """A model of the same sizes, without the checkpoint's weights."""
        from dvae.tasks.semi_supervised.module import SemiSupervisedModule

        # Evaluation does not use the loss.
        return SemiSupervisedModule(
            stored.build_model(),
            classification_weight=0.0,
            deformation=0.0,
            config=stored.model_dump(),
        )

    def draw(
        self,
        module: SemiSupervisedModule,
        data: ImageDataModule,
        what: str,
        config: SampleConfig,
        generator: Generator,
    ) -> Drawing:
        """Each class in `num_images` styles; see `Task.draw`."""
        from dvae.tasks.semi_supervised.pictures import classes

        styles = config.num_images or self.drawings[what]
        return Drawing(*classes(module.model, styles, generator))


TASK = SemiSupervisedTask()
