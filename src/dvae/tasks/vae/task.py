"""The task of training a VAE."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from dvae.errors import UserError
from dvae.tasks.base import Drawing
from dvae.tasks.images import ImageTask, first_images
from dvae.tasks.options import SampleConfig
from dvae.tasks.vae.config import StoredVAEConfig, VAEConfig

if TYPE_CHECKING:
    from pytorch_lightning.callbacks import Callback
    from torch import Generator, Tensor

    from dvae.data.module import ImageDataModule
    from dvae.tasks.vae.module import VAEModule

__all__ = ["TASK", "VAETask"]

_INTERPOLATION_STEPS = 10
_KEEP = 0.5
_MAX_PICTURES = 50_000
"""Most images in a traversal."""


class VAETask(ImageTask[StoredVAEConfig, VAEConfig, "VAEModule"]):
    """See `dvae.models.vae.VAE` and `dvae.tasks.vae.module.VAEModule`."""

    stored = StoredVAEConfig
    config = VAEConfig
    drawings: ClassVar = {
        "prior": 64,
        "reconstructions": 64,
        "traversal": 1,
        "interpolation": 8,
        "completion": 8,
        "decode": 64,
    }
    options = ImageTask.options | {
        "num_steps",
        "images",
        "codes",
        "sampling_temperature",
        "label",
        "keep",
        "separate",
    }

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
            prior_weight=config.prior_weight_schedule(total_steps),
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
        """Samples, reconstructions, traversals, interpolations and so on; see `Task.draw`."""
        from dvae.tasks.vae.pictures import decoded

        _check_inputs(what, config)
        drawing = self._draw(module, data, what, config, generator)
        if not config.separate:
            return drawing
        return replace(drawing, images=decoded(module.vae, drawing.codes))

    def _draw(
        self,
        module: VAEModule,
        data: ImageDataModule,
        what: str,
        config: SampleConfig,
        generator: Generator,
    ) -> Drawing:
        from dvae.data.binarize import to_unit
        from dvae.tasks.vae import inputs, pictures
        from dvae.training.terminal import track

        vae, count = module.vae, config.num_images or self.drawings[what]
        sampling = {
            "context": pictures.class_context(vae.prior, config.label),
            "temperature": config.sampling_temperature or 1.0,
            "track": track,
        }
        if what == "prior":
            return Drawing(*pictures.samples(vae, count, generator, **sampling))
        if config.codes is not None:
            codes = inputs.read_codes(config.codes, vae.prior.grid, vae.num_categories)
            codes = _first(codes, config.num_images, count, config.codes).to(module.device)
            return Drawing(pictures.render(vae, codes, pictures.columns(len(codes))), codes)
        pairs = 2 if what == "interpolation" else 1
        if config.images is not None:
            files = [config.images] if isinstance(config.images, str) else config.images
            images = inputs.read_images(files, data.source.decoder)
            images = _first(images, config.num_images, count, "images", pairs)
        else:
            images = first_images(data, config.split or "test", count, pairs)
        shown = to_unit(images.to(module.device))
        if what == "reconstructions":
            return Drawing(*pictures.reconstructions(vae, shown, generator))
        if what == "completion":
            keep = _KEEP if config.keep is None else config.keep
            return Drawing(*pictures.completions(vae, shown, keep, generator, **sampling))
        codes = pictures.posterior_codes(vae, shown, generator)
        if what == "traversal":
            columns = vae.num_categories
            _check_count(len(codes) * vae.num_latents * columns)
            path = pictures.traversal_codes(vae, codes, generator)
        else:
            columns = config.num_steps or _INTERPOLATION_STEPS
            ends = codes[::2], codes[1::2]
            path = pictures.likely_interpolation(vae.prior, *ends, columns, generator)
        return Drawing(pictures.render(vae, path, columns), path)


def _check_inputs(what: str, config: SampleConfig) -> None:
    """Checks that the drawing uses the files that are given.

    Raises:
        UserError: If it needs or ignores one.
    """
    if (what == "decode") != (config.codes is not None):
        raise UserError(
            "codes: expected a file with codes for what=decode, found none; give codes=…"
            if what == "decode"
            else f"codes: expected null with what={what}, found {config.codes}"
        )
    drawn = ("prior", "completion")
    for key, used in {
        "images": what not in ("prior", "decode"),
        "split": what not in ("prior", "decode"),
        "sampling_temperature": what in drawn,
        "label": what in drawn,
        "keep": what == "completion",
    }.items():
        value = getattr(config, key)
        if value is not None and not used:
            raise UserError(f"{key}: expected null with what={what}, found {value}")
    if config.images is not None and config.split is not None:
        raise UserError(f"split: expected null with images of your own, found {config.split}")


def _first(given: Tensor, asked: int | None, default: int, key: str, each: int = 1) -> Tensor:
    """The first entries of a file: as many as asked for, or else at most the default.

    Raises:
        UserError: If there are fewer than asked for.
    """
    count = asked or max(1, min(default, len(given) // each))
    if count * each > len(given):
        raise UserError(
            f"num_images: expected at most the {len(given)} in {key}, found {count}"
            + (" pairs" if each > 1 else "")
        )
    return given[: count * each]


def _check_count(count: int) -> None:
    """Refuses a traversal of a large codebook, which no picture can show."""
    if count > _MAX_PICTURES:
        raise UserError(
            f"what=traversal: expected at most {_MAX_PICTURES:,} images, one for each latent and "
            f"category, found {count:,}"
        )


TASK = VAETask()
