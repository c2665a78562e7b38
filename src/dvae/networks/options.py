"""Base classes of the options of encoders and decoders."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from dvae.options import Count, Options, one_of

if TYPE_CHECKING:
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
    """

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


class FlatNetworkOptions(NetworkOptions):
    """Networks whose codes have no position in the image: the grid is a row of N codes."""

    num_latents: Count = 20
    activation: Activation = "silu"
    normalization: Normalization = "batch"

    def sizes(self) -> dict[str, Any]:
        """The arguments that encoder and decoder share."""
        return self.model_dump(exclude={"name", "base_rates"})

    def grid(self, image_shape: Sequence[int]) -> tuple[int, ...]:
        """(N,), for images of any shape."""
        return (self.num_latents,)
