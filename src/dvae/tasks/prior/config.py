"""The configuration of fitting a prior to the codes of a trained VAE."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from dvae.errors import UserError
from dvae.options import Count, FullPath, Size
from dvae.priors import AnyPrior
from dvae.tasks.options import DataOverride
from dvae.training.config import RunConfig

__all__ = ["PriorConfig"]


class PriorDataOptions(DataOverride):
    """Data keys that override those of the checkpoint; null keeps the checkpoint's value."""

    batch_size: Annotated[int, Field(ge=2)] | None = None
    eval_batch_size: Count | None = None


class PriorConfig(RunConfig):
    """The configuration of a run.

    The model, its likelihood and the data are those of the checkpoint.

    Attributes:
        checkpoint: The trained VAE.
        prior: The prior that takes the place of the VAE's own.
        test_samples: Samples of the importance-weighted bound in the final test; 0 for no bound.
    """

    checkpoint: FullPath | None = None
    data: PriorDataOptions
    prior: AnyPrior
    test_samples: Size = 100

    @model_validator(mode="after")
    def _check_delay(self) -> Self:
        if self.prior.encoder_delay:
            raise UserError(
                "prior.delay: expected null or 0 with task=prior, where the encoder is trained "
                f"already, found {self.prior.encoder_delay}"
            )
        return self
