"""The variational autoencoder with categorical latents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from dvae.commands.schemas import (
    MAX_ENUMERATION,
    SCORE_FUNCTIONS,
    ModelConfig,
    Reinforce,
    TrainConfig,
)
from dvae.commands.script_schemas import FromCheckpointConfig, SampleConfig
from dvae.errors import UserError
from dvae.tasks.base import IMAGE_OPTIONS, Drawing, Task

if TYPE_CHECKING:
    from torch import Generator

    from dvae.data.module import ImageDataModule
    from dvae.schedules import Schedule
    from dvae.tasks.vae.module import VAEModule

__all__ = ["TASK", "VAETask"]


class VAETask(Task):
    """See `dvae.models.VAE` and `dvae.tasks.vae.module.VAEModule`."""

    config = TrainConfig
    stored = ModelConfig
    drawings: ClassVar = {"prior": 64, "reconstructions": 64, "traversal": 1, "interpolation": 8}
    options = IMAGE_OPTIONS | {"num_steps"}

    measures_gradient = True

    def check(self, config: TrainConfig) -> None:
        """Which estimators and objectives go together; see `Task.check`."""
        super().check(config)
        name, objective = config.estimator.name, config.objective
        if (objective.kl == "relaxed") == (objective.prior_temperature is None):
            expected = "a number" if objective.kl == "relaxed" else "null"
            raise UserError(
                f"objective.prior_temperature: expected {expected} with "
                f"objective.kl={objective.kl}, found {objective.prior_temperature}"
            )
        if objective.kl == "relaxed" and name != "gumbel_softmax":
            raise UserError(
                "estimator: expected gumbel_softmax with objective.kl=relaxed, as densities of "
                f"relaxed samples are compared, found {name}"
            )
        if objective.name != "elbo" and objective.num_samples < 2:
            raise UserError(
                f"objective.num_samples: expected at least 2 with objective={objective.name}, "
                f"found {objective.num_samples}"
            )
        if objective.name == "iwae" and name in (*SCORE_FUNCTIONS, "exact"):
            raise UserError(
                "estimator: expected one whose gradient passes through the sample with "
                "objective=iwae, as the bound has no cost for each sample, found "
                f"{name}; objective=vimco has one"
            )
        plain = isinstance(config.estimator, Reinforce) and config.estimator.decay is None
        if objective.name == "vimco" and not plain:
            raise UserError(
                "estimator: expected reinforce with estimator.decay=null with objective=vimco, "
                f"which brings its own baseline, found {name}"
            )
        codes = config.model.num_categories**config.model.num_latents
        if name == "exact" and (codes > MAX_ENUMERATION or objective.num_samples > 1):
            raise UserError(
                f"estimator=exact: expected at most {MAX_ENUMERATION:,} codes and "
                f"objective.num_samples=1, found {config.model.num_categories}^"
                f"{config.model.num_latents} codes and {objective.num_samples}"
            )

    def data(self, config: TrainConfig) -> ImageDataModule:
        """Images."""
        from dvae.commands.build import build_training_data

        return build_training_data(config, config.data)

    def stored_data(self, stored: ModelConfig, config: FromCheckpointConfig) -> ImageDataModule:
        """Images of the checkpoint's data set, or of another."""
        from dvae.commands.build import build_stored_data

        return build_stored_data(stored.data, config, stored.seed)

    def module(self, config: TrainConfig, data: ImageDataModule) -> VAEModule:
        """A model that starts at the mean training image."""
        from dvae.commands.build import build_module, build_vae

        return build_module(config, build_vae(config, data.pixel_mean()), data.steps_per_epoch())

    def restore(self, stored: ModelConfig) -> VAEModule:
        """A model of the same sizes."""
        from dvae.commands.build import build_vae
        from dvae.tasks.vae.module import VAEModule

        return VAEModule(build_vae(stored), config=stored.model_dump())

    def schedules(self, config: TrainConfig, total_steps: int) -> dict[str, Schedule]:
        """β besides; see `Task.schedules`."""
        from dvae.commands.build import build_beta

        return super().schedules(config, total_steps) | {"beta": build_beta(config, total_steps)}

    def draw(
        self, module: Any, data: Any, what: str, config: SampleConfig, generator: Generator
    ) -> Drawing:
        """Samples, reconstructions, traversals or interpolations; see `Task.draw`."""
        from dvae.data.binarize import to_unit
        from dvae.tasks import pictures as visualize

        vae, count = module.vae, config.num_images or self.drawings[what]
        if what == "prior":
            return Drawing(*visualize.samples(vae, count, generator))
        pairs = 2 if what == "interpolation" else 1
        images = visualize.take(data, config.split or "test", count, pairs)
        inputs = to_unit(images.to(module.device))
        if what == "reconstructions":
            return Drawing(*visualize.reconstructions(vae, inputs, generator))
        codes = visualize.posterior_codes(vae, inputs, generator)
        if what == "traversal":
            columns = vae.num_categories
            path = visualize.traversal_codes(codes, columns)
        else:
            columns = config.num_steps or 10
            path = visualize.interpolation_codes(codes[::2], codes[1::2], columns, generator)
        return Drawing(visualize.render(vae, path, columns), path)


TASK = VAETask()
