"""Base class of the options of gradient estimators."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

from dvae.options import Options

if TYPE_CHECKING:
    from dvae.estimators.base import Estimator

__all__ = ["EstimatorOptions"]


class EstimatorOptions(Options):
    """The options of an estimator, and facts about it.

    Attributes:
        name: Name in configurations.
        hard: Whether the forward value of `z` is exactly one-hot.
        uses_temperature: Whether the temperature has any effect.
        score_function: Whether gradients reach the logits through `Estimator.surrogate` only, and
            not through `z`.
        enumerates: Whether it uses every code instead of drawing some.
        coupled: Whether the draws of one image depend on one another, so that all of them need the
            same logits.
    """

    name: str = ""
    hard: ClassVar[bool] = True
    uses_temperature: ClassVar[bool] = True
    score_function: ClassVar[bool] = False
    enumerates: ClassVar[bool] = False
    coupled: ClassVar[bool] = False

    @abstractmethod
    def build(self) -> Estimator:
        """Builds the estimator."""
