"""Options of the networks in `conv.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from dvae.networks.flat_options import FlatNetworkOptions
from dvae.options import Count

if TYPE_CHECKING:
    from dvae.networks.base import Decoder
    from dvae.networks.flat import FlatEncoder

__all__ = ["ConvOptions"]


class ConvOptions(FlatNetworkOptions):
    """See `dvae.networks.conv`.

    Attributes:
        hidden: Width of the linear layer between convolutions and codes.
    """

    name: Literal["conv"] = "conv"
    hidden: Count = 256

    def flat_encoder(self, image_shape: Sequence[int], num_latents: int) -> FlatEncoder:
        """See `FlatNetworkOptions`."""
        from dvae.networks.conv import ConvEncoder

        return ConvEncoder(
            image_shape,
            num_latents,
            self.num_categories,
            hidden=self.hidden,
            centered=self.centered,
            **self._layers(),
        )

    def flat_decoder(self, image_shape: Sequence[int], channels: int, num_latents: int) -> Decoder:
        """See `FlatNetworkOptions`."""
        from dvae.networks.conv import ConvDecoder

        return ConvDecoder(
            (channels, *image_shape[1:]),
            num_latents,
            self.num_categories,
            hidden=self.hidden,
            code_map=self.code_map,
            **self._layers(),
        )
