"""Options of the likelihood in `gaussian.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from dvae.likelihoods.options import LikelihoodOptions

if TYPE_CHECKING:
    from dvae.likelihoods.base import Likelihood

__all__ = ["GaussianOptions"]


class GaussianOptions(LikelihoodOptions):
    """See `dvae.likelihoods.gaussian.Gaussian`.

    Attributes:
        scale: Whether the decoder gives one scale for each image, or one for each channel of each
            pixel.
    """

    name: Literal["gaussian"] = "gaussian"
    pixels = "real"
    scale: Literal["image", "pixel"] = "image"

    def build(self) -> Likelihood:
        """Builds the likelihood."""
        from dvae.likelihoods.gaussian import Gaussian

        return Gaussian(self.scale)
