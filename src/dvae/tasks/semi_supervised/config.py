"""The configuration of semi-supervised classification."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import model_validator

from dvae.errors import UserError
from dvae.networks.conv_options import ConvOptions
from dvae.networks.mlp_options import MLPOptions
from dvae.networks.options import Normalization
from dvae.options import Count, NonNegative, Options
from dvae.tasks.images import ImageRunConfig, StoredImageConfig
from dvae.tasks.semi_supervised.data_options import AnyLabelledData

if TYPE_CHECKING:
    from torch import Tensor

    from dvae.tasks.semi_supervised.model import ClassStyleVAE

__all__ = ["SemiSupervisedConfig", "StoredSemiSupervisedConfig"]


class ClassStyleOptions(Options):
    """See `dvae.tasks.semi_supervised.model.ClassStyleVAE`; the classifier is a small encoder.

    Attributes:
        classifier: The kind of encoder.
        classifier_width: Width of its hidden layer or layers.
        normalization: Normalization in the classifier.
        num_classes: K; at least the number of classes in the labels.
        style: Dimensions of the style.
        width: Width of the hidden layers of the style encoder and the decoder.
    """

    name: Literal["class_style"] = "class_style"
    classifier: Literal["conv", "mlp"] = "conv"
    classifier_width: Count = 128
    normalization: Normalization = "batch"
    num_classes: Count = 10
    style: Count = 8
    width: Count = 256

    def classifier_options(self) -> ConvOptions | MLPOptions:
        """The encoder whose single latent is the class."""
        width = self.classifier_width
        sizes: dict[str, Any] = {
            "num_latents": 1,
            "num_categories": self.num_classes,
            "activation": "relu",
            "normalization": self.normalization,
        }
        if self.classifier == "conv":
            return ConvOptions(hidden=width, **sizes)
        return MLPOptions(hidden=[width, width], **sizes)


class LabelsOptions(Options):
    """See `dvae.tasks.semi_supervised.module.SemiSupervisedModule`.

    Attributes:
        classification_weight: Weight of the cross-entropy of labelled images.
        deformation: Strength of the random deformation of the classifier's input; 0 for none.
    """

    name: Literal["labels"] = "labels"
    classification_weight: NonNegative = 100.0
    deformation: NonNegative = 0.1


class StoredSemiSupervisedConfig(StoredImageConfig):
    """The part from which a checkpoint's model is rebuilt."""

    data: AnyLabelledData
    model: ClassStyleOptions

    @model_validator(mode="after")
    def _check_classes(self) -> Self:
        if self.model.num_classes < (self.data.num_classes or 0):
            raise UserError(
                f"model.num_classes: expected at least the {self.data.num_classes} classes of "
                f"data.name={self.data.name}, found {self.model.num_classes}"
            )
        self.model.classifier_options().check_images(self.data.image_shape)
        return self

    def build_model(self, pixel_mean: Tensor | None = None) -> ClassStyleVAE:
        """The model.

        Args:
            pixel_mean: Mean training image, (C, H, W) in [0, 1]; not needed if a checkpoint is
                loaded afterwards.
        """
        import torch

        from dvae.tasks.semi_supervised.model import ClassStyleVAE

        sizes, shape = self.model, self.data.image_shape
        return ClassStyleVAE(
            sizes.classifier_options().build_encoder(shape),
            self.build_layer(),
            self.likelihood.build(),
            sizes.num_classes,
            sizes.style,
            sizes.width,
            torch.full(shape, 0.5) if pixel_mean is None else pixel_mean,
        )


class SemiSupervisedConfig(StoredSemiSupervisedConfig, ImageRunConfig):
    """The configuration of a run."""

    objective: LabelsOptions
