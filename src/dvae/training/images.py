"""Base of the LightningModules whose models score images."""

import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from torch import Tensor

from dvae.likelihoods.base import Likelihood
from dvae.models.usage import CodeUsage
from dvae.training.codes import CodeModule
from dvae.training.settings import Evaluation, Training

__all__ = ["ImageModule"]


class ImageModule(CodeModule):
    """A task whose model scores images with a likelihood.

    If the likelihood gives probabilities to 8-bit values, bounds are also reported in bits per
    dimension, nats / (ln 2 · D): `bits_per_dim` is −`elbo`, and `bits_per_dim_…` is `nll_…`. A
    density or a cross-entropy is no such figure.

    Args:
        likelihood: Scores images.
        num_dimensions: D, the numbers in an image that it scores: C · H · W.
        usage: See `CodeModule`.
        training_pass: See `TaskModule`.
        training: See `TaskModule`.
        evaluation: See `TaskModule`.
        config: See `TaskModule`.
    """

    units: ClassVar[Mapping[str, str]] = {
        **CodeModule.units,
        "bits_per_dim": "bits per dimension",
    }

    def __init__(
        self,
        likelihood: Likelihood,
        num_dimensions: int,
        usage: CodeUsage,
        training_pass: Callable[..., tuple[Tensor, ...]] | None,
        training: Training | None = None,
        evaluation: Evaluation | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(usage, training_pass, training, evaluation, config)
        self._counts_bits = likelihood.pixels == "8-bit"
        self._nats_per_bit = math.log(2) * num_dimensions

    def log_means(self, values: Mapping[str, Tensor], split: str) -> None:
        """Logs means over the split, of bounds in bits per dimension too; see `TaskModule`."""
        bits = {}
        for name, value in values.items() if self._counts_bits else ():
            if name == "elbo":
                bits["bits_per_dim"] = -value / self._nats_per_bit
            elif name.startswith("nll_"):
                bits[name.replace("nll", "bits_per_dim")] = value / self._nats_per_bit
        super().log_means({**values, **bits}, split)
