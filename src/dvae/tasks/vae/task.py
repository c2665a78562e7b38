"""The task of training a VAE."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from dvae.tasks.base import Drawing
from dvae.tasks.images import ImageTask, first_images
from dvae.tasks.options import SampleConfig
from dvae.tasks.vae.config import StoredVAEConfig, VAEConfig

if TYPE_CHECKING:
    from pytorch_lightning.callbacks import Callback
    from torch import Generator

    from dvae.data.module import ImageDataModule
    from dvae.tasks.vae.module import VAEModule

__all__ = ["TASK", "VAETask"]

_INTERPOLATION_STEPS = 10


class VAETask(ImageTask[StoredVAEConfig, VAEConfig, "VAEModule"]):
    """See `dvae.models.vae.VAE` and `dvae.tasks.vae.module.VAEModule`."""

    stored = StoredVAEConfig
    config = VAEConfig
    drawings: ClassVar = {"prior": 64, "reconstructions": 64, "traversal": 1, "interpolation": 8}
    options = ImageTask.options | {"num_steps"}

    def module(self, config: VAEConfig, data: ImageDataModule) -> VAEModule:
        """A new model, whose output starts at the mean training image."""
        from dvae.tasks.vae.module import VAEModule
        from dvae.training.settings import Evaluation

        vae = config.build_model(data.pixel_mean())
        total_steps = data.steps_per_epoch() * config.trainer.max_epochs
        return VAEModule(
            vae,
            objective=config.objective.build(),
            beta=config.objective.beta_schedule(total_steps),
            training=config.build_training(total_steps),
            evaluation=Evaluation(num_samples=config.test_samples, shades=data.shades),
            config=config.model_dump(),
        )

    def restore(self, stored: StoredVAEConfig) -> VAEModule:
        """A model of the same sizes, without the checkpoint's weights."""
        from dvae.tasks.vae.module import VAEModule

        return VAEModule(stored.build_model(), config=stored.model_dump())

    def callbacks(self, config: VAEConfig) -> list[Callback]:
        """The measurement of the gradient's noise, if `callbacks.gradient_snr` is set."""
        from dvae.tasks.vae.gradient_noise import GradientNoise

        every = config.callbacks.gradient_snr
        return [] if every is None else [GradientNoise(every)]

    def draw(
        self,
        module: VAEModule,
        data: ImageDataModule,
        what: str,
        config: SampleConfig,
        generator: Generator,
    ) -> Drawing:
        """Samples, reconstructions, traversals or interpolations; see `Task.draw`."""
        from dvae.data.binarize import to_unit
        from dvae.tasks.vae import pictures

        vae, count = module.vae, config.num_images or self.drawings[what]
        if what == "prior":
            return Drawing(*pictures.samples(vae, count, generator))
        pairs = 2 if what == "interpolation" else 1
        images = first_images(data, config.split or "test", count, pairs)
        inputs = to_unit(images.to(module.device))
        if what == "reconstructions":
            return Drawing(*pictures.reconstructions(vae, inputs, generator))
        codes = pictures.posterior_codes(vae, inputs, generator)
        if what == "traversal":
            columns = vae.num_categories
            path = pictures.traversal_codes(codes, columns)
        else:
            columns = config.num_steps or _INTERPOLATION_STEPS
            path = pictures.interpolation_codes(codes[::2], codes[1::2], columns, generator)
        return Drawing(pictures.render(vae, path, columns), path)


TASK = VAETask()
