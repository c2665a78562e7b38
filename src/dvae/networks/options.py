"""Base classes of the options of encoders and decoders."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from dvae.options import Options, one_of

if TYPE_CHECKING:
    from torch import nn

    from dvae.networks.base import Decoder, Encoder

__all__ = ["ACTIVATIONS", "Activation", "NetworkOptions", "Normalization"]

ACTIVATIONS = {
    "elu": "ELU",
    "gelu": "GELU",
    "leaky_relu": "LeakyReLU",
    "relu": "ReLU",
    "silu": "SiLU",
    "tanh": "Tanh",
}
"""Name of an activation in configurations → name of its class in `torch.nn`."""

Activation = Annotated[str, one_of(ACTIVATIONS)]
Normalization = Literal["none", "batch", "layer"]


class NetworkOptions(Options):
    """The options of an encoder and its decoder.

    Attributes:
        name: Name in configurations.
        num_categories: K.
        base_rates: Whether training starts at the mean training image; see `dvae.models.vae.VAE`.
        learning_rate: Default of `optimizer.lr` with `optimizer=adamw`; None: that of AdamW.
    """

    learning_rate: ClassVar[float | None] = None
    name: str = ""
    num_categories: Annotated[int, Field(ge=2)] = 10
    base_rates: bool = True

    @abstractmethod
    def grid(self, image_shape: Sequence[int]) -> tuple[int, ...]:
        """Shape of the grid of codes, whose product is N, for images (C, H, W)."""

    def check_images(self, image_shape: Sequence[int]) -> None:
        """Checks that these networks can take images of a shape (C, H, W).

        Raises:
            UserError: If they cannot; by default, never.
        """

    def level_grids(self, image_shape: Sequence[int]) -> list[tuple[int, ...]]:
        """Shape of the grid of each level of codes, from the image up; by default, one level."""
        return [self.grid(image_shape)]

    def build_top_down(self, image_shape: Sequence[int]) -> list[nn.Module]:
        """The networks of `dvae.priors.top_down.TopDownPrior`; by default, none for one level."""
        return []

    @property
    def reads_all_levels(self) -> bool:
        """Whether decoder and prior read all levels above, not only the next one."""
        return False

    @property
    def sequential(self) -> str:
        """The option by which codes are drawn in several groups, as `key=value`; "" if not."""
        return ""

    @abstractmethod
    def build_encoder(self, image_shape: Sequence[int]) -> Encoder:
        """Builds the encoder for images (C, H, W)."""

    @abstractmethod
    def build_decoder(self, image_shape: Sequence[int], channels: int) -> Decoder:
        """Builds the decoder.

        Args:
            image_shape: Shape of an image, (C, H, W).
            channels: P, the number of parameter channels of the likelihood.
        """
