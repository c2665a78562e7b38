"""The task of fitting a prior to the codes of a trained VAE."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from dvae.errors import UserError
from dvae.tasks import find_task
from dvae.tasks.images import build_data, check_early_stopping
from dvae.tasks.prior.config import PriorConfig
from dvae.tasks.vae.task import VAETask

if TYPE_CHECKING:
    from dvae.data.module import ImageDataModule
    from dvae.data.options import ImageDataOptions
    from dvae.tasks.prior.module import PriorModule
    from dvae.tasks.vae.config import StoredVAEConfig
    from dvae.tasks.vae.module import VAEModule

__all__ = ["TASK", "PriorTask"]


class PriorTask(VAETask):
    """See `dvae.tasks.prior.module.PriorModule`.

    The checkpoints of its runs belong to the task of the VAE, with the new prior.
    """

    config = PriorConfig  # type: ignore[assignment]

    def data(self, config: PriorConfig) -> ImageDataModule:  # type: ignore[override]
        """The images of the checkpoint; see `ImageTask.stored_data`."""
        _, stored = _load(config)
        options = _data_options(config, stored)
        check_early_stopping(config, options)
        return build_data(options, config)

    def module(self, config: PriorConfig, data: ImageDataModule) -> PriorModule:  # type: ignore[override]
        """The checkpoint's model with a new prior."""
        from dvae.tasks.prior.module import PriorModule
        from dvae.training.settings import Evaluation

        trained, stored = _load(config)
        options, vae = _data_options(config, stored), trained.vae
        new = {"data": options, "prior": config.prior, "seed": config.seed}
        stored = stored.model_copy(update=new)
        config.prior.check_grid(stored.model.level_grids(options.image_shape)[-1])
        vae.prior = stored.build_prior()
        if not any(True for _ in vae.prior.parameters()):
            raise UserError(f"prior: expected one that is learned, found {config.prior.name}")
        classes, found = config.prior.classes, options.num_classes
        if classes and classes != found:
            expected = "0, as the images have no labels" if found is None else f"0 or {found}"
            raise UserError(
                f"prior.num_classes: expected {expected} with data.name={options.name}, found "
                f"{classes}"
            )
        if classes != vae.prior.context_size:
            raise UserError(
                f"prior.num_classes: expected 0 with a hierarchy of codes, found {classes}"
            )
        return PriorModule(
            vae,
            data.labels("train") if classes else None,
            training=config.build_training(data.steps_per_epoch() * config.trainer.max_epochs),
            evaluation=Evaluation(num_samples=config.test_samples, shades=data.shades),
            config=config.model_dump() | stored.model_dump(),
        )


def _load(config: PriorConfig) -> tuple[VAEModule, StoredVAEConfig]:
    from dvae.tasks.vae.loading import load_vae

    if config.checkpoint is None:
        raise UserError(
            "checkpoint: expected a checkpoint of task=vae, found none; give checkpoint=PATH"
        )
    return load_vae(config.checkpoint)


def _data_options(config: PriorConfig, stored: StoredVAEConfig) -> ImageDataOptions:
    task = cast(VAETask, find_task(stored.task))
    return task.data_options(stored, config.data.model_dump(exclude_none=True))


TASK = PriorTask()
