"""Base class of the options of likelihoods."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar, Literal

from dvae.errors import UserError
from dvae.options import Options

if TYPE_CHECKING:
    from dvae.likelihoods.base import Likelihood

__all__ = ["LikelihoodOptions", "Pixels"]

Pixels = Literal["binary", "8-bit", "real"]


class LikelihoodOptions(Options):
    """The options of a likelihood, and facts about it.

    Attributes:
        name: Name in configurations.
        pixels: What it describes: pixels of 0 and 1 ("binary"), a probability for each of the 256
            values of a pixel ("8-bit"), or a density of real numbers ("real").
    """

    name: str = ""
    pixels: ClassVar[Pixels] = "real"

    @abstractmethod
    def build(self) -> Likelihood:
        """Builds the likelihood."""

    def check_data(self, channels: int, binarization: str) -> None:
        """Checks that the likelihood means something for images.

        Args:
            channels: C. Pixels of a single channel may be soft targets of a binary likelihood.
            binarization: "none" for grey or coloured pixels; anything else for binary ones.

        Raises:
            UserError: If it does not.
        """
        if self.pixels == "binary" and binarization == "none" and channels > 1:
            raise UserError(
                f"data.binarization: expected dynamic or fixed with likelihood={self.name} and "
                f"images of {channels} channels, found none; for coloured pixels, give another "
                "likelihood, such as discretized_logistic"
            )
        if self.pixels != "binary" and binarization != "none":
            raise UserError(
                f"data.binarization: expected none with likelihood={self.name}, which describes "
                f"pixels that are not binary, found {binarization}"
            )
