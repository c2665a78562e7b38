"""Semi-supervised classification: the class of a digit is a categorical latent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from dvae.commands.schemas import (
    Count,
    Data,
    NonNegative,
    RunConfig,
    Schema,
    StoredConfig,
)
from dvae.commands.script_schemas import FromCheckpointConfig, SampleConfig
from dvae.errors import UserError
from dvae.tasks.base import Drawing, Task

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from dvae.data.module import ImageDataModule
    from dvae.tasks.semi_supervised.model import ClassStyleVAE
    from dvae.tasks.semi_supervised.module import SemiSupervisedModule

__all__ = ["TASK", "SemiSupervisedTask"]


class LabelledData(Data):
    """See `dvae.tasks.semi_supervised.data.LabelledImageDataModule`."""

    name: Literal["mnist", "fashion_mnist", "kmnist"]
    num_labels: Count
    labelled_batch_size: Count


class ClassStyle(Schema):
    """See `dvae.tasks.semi_supervised.model.ClassStyleVAE`; the classifier is a small encoder."""

    name: Literal["class_style"]
    classifier: Literal["conv", "mlp"]
    classifier_width: Count
    normalization: Literal["none", "batch", "layer"]
    # The digits have ten.
    num_classes: Annotated[int, Field(ge=10)]
    style: Count
    width: Count


class Labels(Schema):
    """See `dvae.tasks.semi_supervised.module.SemiSupervisedModule`."""

    name: Literal["labels"]
    classification_weight: NonNegative
    deformation: NonNegative


class StoredSemiSupervised(StoredConfig):
    """What a checkpoint needs."""

    task: Literal["semi_supervised"]
    data: LabelledData
    model: ClassStyle


class SemiSupervisedConfig(StoredSemiSupervised, RunConfig):
    """Everything that a run is made of."""

    objective: Labels
    test_samples: Annotated[int, Field(ge=0)]


class SemiSupervisedTask(Task):
    """See `dvae.tasks.semi_supervised.model` and `dvae.tasks.semi_supervised.module`.

    Checkpoints are chosen by the bound on validation images, which needs none of their labels.
    """

    config = SemiSupervisedConfig
    stored = StoredSemiSupervised
    drawings: ClassVar = {"classes": 10}
    options = frozenset(
        {
            "data.name",
            "data.binarization",
            "data.validation",
            "num_samples",
            "batch_size",
            "max_decodes",
        }
    )

    def data(self, config: SemiSupervisedConfig) -> ImageDataModule:
        """Images, of which a few come with labels."""
        from dvae.commands.build import build_training_data
        from dvae.tasks.semi_supervised.data import LabelledImageDataModule

        return build_training_data(config, config.data, LabelledImageDataModule)

    def stored_data(
        self, stored: StoredSemiSupervised, config: FromCheckpointConfig
    ) -> ImageDataModule:
        """Images of the checkpoint's data set, or of another that has labels."""
        from dvae.commands.build import build_stored_data
        from dvae.tasks.semi_supervised.data import LabelledImageDataModule

        if config.data.name in ("emnist", "omniglot"):
            raise UserError(
                "data.name: expected mnist, fashion_mnist or kmnist with a checkpoint of "
                f"task={self.name}, found {config.data.name}"
            )
        return build_stored_data(stored.data, config, stored.seed, LabelledImageDataModule)

    def module(self, config: SemiSupervisedConfig, data: ImageDataModule) -> SemiSupervisedModule:
        """A model that starts at the mean training image."""
        from dvae.commands.build import build_training
        from dvae.tasks.semi_supervised.module import SemiSupervisedModule
        from dvae.training.module import Evaluation

        return SemiSupervisedModule(
            _model(config, data.pixel_mean()),
            **config.objective.model_dump(exclude={"name"}),
            training=build_training(config, data.steps_per_epoch() * config.trainer.max_epochs),
            evaluation=Evaluation(num_samples=config.test_samples),
            config=config.model_dump(),
        )

    def restore(self, stored: StoredSemiSupervised) -> SemiSupervisedModule:
        """A model of the same sizes."""
        from dvae.tasks.semi_supervised.module import SemiSupervisedModule

        return SemiSupervisedModule(_model(stored), config=stored.model_dump())

    def draw(
        self, module: Any, data: Any, what: str, config: SampleConfig, generator: Generator
    ) -> Drawing:
        """Every class in as many styles as images are asked for; see `Task.draw`."""
        from dvae.tasks.pictures import classes

        styles = config.num_images or self.drawings[what]
        return Drawing(*classes(module.model, styles, generator))


def _model(stored: StoredSemiSupervised, pixel_mean: Tensor | None = None) -> ClassStyleVAE:
    import torch

    from dvae.commands.build import build_layer
    from dvae.data.sources import IMAGE_SHAPE
    from dvae.networks.mlp import ConvEncoder, MLPEncoder
    from dvae.tasks.semi_supervised.model import ClassStyleVAE

    sizes = stored.model
    width, normalization = sizes.classifier_width, sizes.normalization
    shape = (IMAGE_SHAPE, 1, sizes.num_classes)
    classifier = (
        ConvEncoder(*shape, hidden=width, normalization=normalization)
        if sizes.classifier == "conv"
        else MLPEncoder(*shape, hidden=(width, width), normalization=normalization)
    )
    mean = torch.full(IMAGE_SHAPE, 0.5) if pixel_mean is None else pixel_mean
    return ClassStyleVAE(
        classifier, build_layer(stored), sizes.num_classes, sizes.style, sizes.width, mean
    )


TASK = SemiSupervisedTask()
