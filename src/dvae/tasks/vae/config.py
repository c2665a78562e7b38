"""The configuration of a VAE."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, Self

from pydantic import model_validator

from dvae.errors import UserError
from dvae.models import AnyObjective
from dvae.networks import AnyNetwork
from dvae.options import MAX_ENUMERATION
from dvae.priors import AnyPrior
from dvae.schedules import Delayed, Schedule, resolve_steps
from dvae.tasks.images import ImageRunConfig, StoredImageConfig

if TYPE_CHECKING:
    from torch import Tensor

    from dvae.models.vae import VAE
    from dvae.networks.base import Encoder
    from dvae.priors.base import Prior

__all__ = ["StoredVAEConfig", "VAEConfig"]

_DELAY = 0.5
"""Share of the run before the encoder adapts to a prior, unless another is given."""
_LOW_WEIGHT = 0.01
"""Weight of a prior until then. Adam's steps do not depend on the scale of a gradient, so that the
prior is fitted to the codes as fast as with a weight of 1, while the encoder hardly sees it."""


class StoredVAEConfig(StoredImageConfig):
    """The part from which a checkpoint's VAE is rebuilt.

    Attributes:
        logits: "softmax" for an output of the encoder for each category, "catnat" for one for each
            split of a binary tree of them; see `dvae.networks.catnat`.
    """

    model: AnyNetwork
    prior: AnyPrior
    logits: Literal["softmax", "catnat"] = "catnat"

    @model_validator(mode="after")
    def _check_images(self) -> Self:
        self.model.check_images(self.data.image_shape)
        self.prior.check_grid(self.model.level_grids(self.data.image_shape)[-1])
        return self

    def build_model(self, pixel_mean: Tensor | None = None) -> VAE:
        """The model.

        Args:
            pixel_mean: Mean training image, (C, H, W) in [0, 1]; not needed if a checkpoint is
                loaded afterwards.
        """
        import torch

        from dvae.models.vae import VAE

        shape, likelihood = self.data.image_shape, self.likelihood.build()
        vae = VAE(
            self._build_encoder(),
            self.model.build_decoder(shape, likelihood.channels(shape[0])),
            self.build_layer(),
            self.build_prior(),
            likelihood,
            torch.full(shape, 0.5) if pixel_mean is None else pixel_mean,
            base_rates=self.model.base_rates,
        )
        # Convolutions are fastest in this layout; no other parameters have four axes.
        return vae.to(memory_format=torch.channels_last)

    def build_prior(self) -> Prior:
        """The prior of the only level, or of the top level and below it the model's networks."""
        from dvae.priors.top_down import TopDownPrior

        model, shape = self.model, self.data.image_shape
        grids = model.level_grids(shape)
        top = self.prior.build(grids[-1], model.num_categories)
        if len(grids) == 1:
            return top
        networks, sizes = model.build_top_down(shape), [math.prod(grid) for grid in grids]
        return TopDownPrior(top, networks, sizes, skips=model.reads_all_levels)

    def _build_encoder(self) -> Encoder:
        """The encoder, with a logit for each category."""
        if self.logits == "softmax":
            return self.model.build_encoder(self.data.image_shape)
        from dvae.networks.catnat import CatnatEncoder

        outputs = self.model.num_categories - (0 if self.model.sequential else 1)
        model = self.model.model_copy(update={"num_categories": outputs})
        return CatnatEncoder(model.build_encoder(self.data.image_shape), self.model.num_categories)


class VAEConfig(StoredVAEConfig, ImageRunConfig):
    """The configuration of a run of a VAE."""

    measures_gradient = True

    objective: AnyObjective

    @model_validator(mode="after")
    def _check_objective(self) -> Self:
        self.objective.check_estimator(self.estimator)
        return self

    @model_validator(mode="after")
    def _check_classes(self) -> Self:
        if self.prior.classes:
            raise UserError(
                f"prior.num_classes: expected 0 with task={self.task}, which uses no labels, found "
                f"{self.prior.classes}; task=prior uses them"
            )
        return self

    @model_validator(mode="after")
    def _check_enumeration(self) -> Self:
        count = math.prod(self.model.grid(self.data.image_shape))
        categories = self.model.num_categories
        many = categories**count > MAX_ENUMERATION or self.objective.num_samples > 1
        if self.estimator.enumerates and many:
            raise UserError(
                f"estimator={self.estimator.name}: expected at most {MAX_ENUMERATION:,} codes and "
                f"objective.num_samples=1, found {categories}^{count} codes and "
                f"{self.objective.num_samples}"
            )
        return self

    @model_validator(mode="after")
    def _check_coupled_draws(self) -> Self:
        if self.estimator.coupled and self.model.sequential:
            raise UserError(
                f"estimator={self.estimator.name}: expected codes that are drawn all at once, as "
                f"draws of an image must have equal logits, found {self.model.sequential}"
            )
        return self

    @model_validator(mode="after")
    def _check_gradient_of_logits(self) -> Self:
        if self.callbacks.gradient_snr is not None and self.model.sequential:
            raise UserError(
                f"callbacks.gradient_snr: expected null with {self.model.sequential}, as it is "
                f"measured at the logits of all codes, found {self.callbacks.gradient_snr}"
            )
        return self

    @model_validator(mode="after")
    def _check_delay(self) -> Self:
        if self.prior.encoder_delay and not self.objective.mixes_priors:
            raise UserError(
                "prior.delay: expected null or 0 unless objective=elbo and "
                f"objective.kl=discrete, found {self.prior.encoder_delay}"
            )
        return self

    def prior_weight_schedule(self, total_steps: int) -> Schedule | None:
        """The weight of the prior in the rate at each step; None if it is always 1."""
        delay = self.prior.encoder_delay
        if delay is None:
            # Codes that depend on one another gain more from a prior that shapes them.
            mixes = self.objective.mixes_priors and not self.model.sequential
            delay = _DELAY if mixes else 0
        if not delay:
            return None
        return Delayed(_LOW_WEIGHT, resolve_steps(delay, total_steps), total_steps)

    def schedules(self, total_steps: int) -> dict[str, Schedule]:
        """Adds β and the weight of the prior; see `RunConfig.schedules`."""
        schedules = super().schedules(total_steps)
        schedules["beta"] = self.objective.beta_schedule(total_steps)
        weight = self.prior_weight_schedule(total_steps)
        return schedules if weight is None else schedules | {"prior_weight": weight}

    def remarks(self, total_steps: int) -> list[str]:
        """Adds those on β; see `RunConfig.remarks`."""
        return super().remarks(total_steps) + self.objective.remarks(total_steps)
