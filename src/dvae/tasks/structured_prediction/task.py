"""Structured output prediction: the lower half of a digit from the upper half."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from dvae.commands.schemas import (
    SCORE_FUNCTIONS,
    Count,
    Data,
    RunConfig,
    Schema,
    StoredConfig,
)
from dvae.commands.script_schemas import FromCheckpointConfig, SampleConfig
from dvae.errors import UserError
from dvae.tasks.base import IMAGE_OPTIONS, Drawing, Task

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from dvae.data.module import ImageDataModule
    from dvae.tasks.structured_prediction.model import StochasticNetwork
    from dvae.tasks.structured_prediction.module import StructuredPredictionModule

__all__ = ["TASK", "StructuredPredictionTask"]


class Stochastic(Schema):
    """See `dvae.tasks.structured_prediction.model.StochasticNetwork`."""

    name: Literal["stochastic"]
    num_layers: Count
    num_latents: Count
    num_categories: Annotated[int, Field(ge=2)]


class Likelihood(Schema):
    """See `dvae.tasks.structured_prediction.module.StructuredPredictionModule`."""

    name: Literal["likelihood"]
    num_samples: Count


class StoredStructuredPrediction(StoredConfig):
    """What a checkpoint needs."""

    task: Literal["structured_prediction"]
    data: Data
    model: Stochastic


class StructuredPredictionConfig(StoredStructuredPrediction, RunConfig):
    """Everything that a run is made of."""

    objective: Likelihood
    test_samples: Annotated[int, Field(ge=0)]


class StructuredPredictionTask(Task):
    """See `model.py` and `module.py` beside this file."""

    config = StructuredPredictionConfig
    stored = StoredStructuredPrediction
    # A network trained with several draws is better than its bound with one tells.
    selected_by = "val/bound"
    drawings: ClassVar = {"completions": 16}
    options = IMAGE_OPTIONS

    def check(self, config: StructuredPredictionConfig) -> None:
        """Which estimators can train it; see `Task.check`."""
        super().check(config)
        name = config.estimator.name
        if name == "exact":
            raise UserError(
                "estimator: expected one that draws codes with task=structured_prediction, whose "
                "layers cannot be enumerated together, found exact"
            )
        if name in SCORE_FUNCTIONS and config.objective.num_samples > 1:
            raise UserError(
                f"objective.num_samples: expected 1 with estimator={name}, which needs a cost for "
                f"each draw, found {config.objective.num_samples}"
            )

    def data(self, config: StructuredPredictionConfig) -> ImageDataModule:
        """Whole images; the model divides them."""
        from dvae.commands.build import build_training_data

        return build_training_data(config, config.data)

    def stored_data(
        self, stored: StoredStructuredPrediction, config: FromCheckpointConfig
    ) -> ImageDataModule:
        """Images of the checkpoint's data set, or of another."""
        from dvae.commands.build import build_stored_data

        return build_stored_data(stored.data, config, stored.seed)

    def module(
        self, config: StructuredPredictionConfig, data: ImageDataModule
    ) -> StructuredPredictionModule:
        """A model that starts at the mean training image."""
        from dvae.commands.build import build_training
        from dvae.tasks.structured_prediction.module import StructuredPredictionModule
        from dvae.training.module import Evaluation

        return StructuredPredictionModule(
            _network(config, data.pixel_mean()),
            num_samples=config.objective.num_samples,
            training=build_training(config, data.steps_per_epoch() * config.trainer.max_epochs),
            evaluation=Evaluation(num_samples=config.test_samples),
            config=config.model_dump(),
        )

    def restore(self, stored: StoredStructuredPrediction) -> StructuredPredictionModule:
        """A model of the same sizes."""
        from dvae.tasks.structured_prediction.module import StructuredPredictionModule

        return StructuredPredictionModule(_network(stored), config=stored.model_dump())

    def draw(
        self, module: Any, data: Any, what: str, config: SampleConfig, generator: Generator
    ) -> Drawing:
        """Completions; see `Task.draw`."""
        from dvae.data.binarize import to_unit
        from dvae.tasks.pictures import completions, take

        images = take(data, config.split or "test", config.num_images or self.drawings[what])
        return Drawing(*completions(module.network, to_unit(images.to(module.device)), generator))


def _network(
    stored: StoredStructuredPrediction, pixel_mean: Tensor | None = None
) -> StochasticNetwork:
    import torch

    from dvae.commands.build import build_layer
    from dvae.data.sources import IMAGE_SHAPE
    from dvae.estimators import Reinforce
    from dvae.layers import GumbelSoftmax
    from dvae.tasks.structured_prediction.model import StochasticNetwork

    layers = [build_layer(stored)]
    for _ in range(1, stored.model.num_layers):
        # A code for each draw of the first layer; the first one's estimator scores them together.
        plain = stored.estimator.name in SCORE_FUNCTIONS
        layers.append(GumbelSoftmax(1.0, Reinforce(None)) if plain else build_layer(stored))
    mean = torch.full(IMAGE_SHAPE, 0.5) if pixel_mean is None else pixel_mean
    return StochasticNetwork(layers, stored.model.num_latents, stored.model.num_categories, mean)


TASK = StructuredPredictionTask()
