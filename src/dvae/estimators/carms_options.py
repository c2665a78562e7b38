"""Options of the estimator in `carms.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from dvae.estimators.options import EstimatorOptions

if TYPE_CHECKING:
    from dvae.estimators.base import Estimator

__all__ = ["CARMSOptions"]


class CARMSOptions(EstimatorOptions):
    """See `dvae.estimators.carms.CARMS`."""

    name: Literal["carms"] = "carms"
    uses_temperature = False
    score_function = True
    coupled = True
    num_samples: Annotated[int, Field(ge=2)] = 4

    def build(self) -> Estimator:
        """Builds the estimator."""
        from dvae.estimators.carms import CARMS

        return CARMS(self.num_samples)
