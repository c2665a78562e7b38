"""The configuration of structured output prediction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from dvae.errors import UserError
from dvae.options import Count, Options, Size
from dvae.tasks.images import ImageRunConfig, StoredImageConfig

if TYPE_CHECKING:
    from torch import Tensor

    from dvae.tasks.structured_prediction.model import StochasticNetwork

__all__ = ["StoredStructuredPredictionConfig", "StructuredPredictionConfig"]


class StochasticOptions(Options):
    """See `dvae.tasks.structured_prediction.model.StochasticNetwork`.

    Attributes:
        num_layers: Stochastic layers.
        num_latents: N.
        num_categories: K.
    """

    name: Literal["stochastic"] = "stochastic"
    num_layers: Count = 2
    num_latents: Count = 20
    num_categories: Annotated[int, Field(ge=2)] = 10


class ConditionalLikelihoodOptions(Options):
    """See `dvae.tasks.structured_prediction.module.StructuredPredictionModule`.

    Attributes:
        num_samples: m, draws for each image.
    """

    name: Literal["likelihood"] = "likelihood"
    num_samples: Count = 5


class StoredStructuredPredictionConfig(StoredImageConfig):
    """The part from which a checkpoint's model is rebuilt."""

    model: StochasticOptions

    @model_validator(mode="after")
    def _check_halves(self) -> Self:
        _, height, _ = self.data.image_shape
        if height % 2:
            raise UserError(
                f"data.size: expected an even height with task={self.task}, which divides images "
                f"into halves, found {height}"
            )
        return self

    def build_model(self, pixel_mean: Tensor | None = None) -> StochasticNetwork:
        """The model.

        Args:
            pixel_mean: Mean training image, (C, H, W) in [0, 1]; not needed if a checkpoint is
                loaded afterwards.
        """
        import torch

        from dvae.estimators.score_function import Reinforce
        from dvae.layers import CategoricalLayer
        from dvae.tasks.structured_prediction.model import StochasticNetwork

        layers = [self.build_layer()]
        for _ in range(1, self.model.num_layers):
            # A score-function estimator in the first layer scores the codes of all layers
            # together; the later layers then draw one code for each of its draws.
            scored = self.estimator.score_function
            plain = CategoricalLayer(1.0, Reinforce(None)) if scored else self.build_layer()
            layers.append(plain)
        mean = torch.full(self.data.image_shape, 0.5) if pixel_mean is None else pixel_mean
        return StochasticNetwork(
            layers,
            self.model.num_latents,
            self.model.num_categories,
            self.likelihood.build(),
            mean,
        )


class StructuredPredictionConfig(StoredStructuredPredictionConfig, ImageRunConfig):
    """The configuration of a run."""

    test_samples: Size = 1000
    objective: ConditionalLikelihoodOptions

    @model_validator(mode="after")
    def _check_estimator(self) -> Self:
        name = self.estimator.name
        if self.estimator.enumerates:
            raise UserError(
                "estimator: expected one that draws codes with task=structured_prediction, whose "
                f"layers cannot be enumerated together, found {name}"
            )
        if self.estimator.coupled and self.model.num_layers > 1:
            raise UserError(
                f"model.num_layers: expected 1 with estimator={name}, whose draws need the same "
                f"logits in all layers, found {self.model.num_layers}"
            )
        if self.estimator.score_function and self.objective.num_samples > 1:
            raise UserError(
                f"objective.num_samples: expected 1 with estimator={name}, which needs a cost for "
                f"each draw, found {self.objective.num_samples}"
            )
        return self
