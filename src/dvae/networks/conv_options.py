"""Options of the networks in `conv.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from dvae.networks.options import FlatNetworkOptions
from dvae.options import Count

if TYPE_CHECKING:
    from dvae.networks.base import Decoder, Encoder

__all__ = ["ConvOptions"]


class ConvOptions(FlatNetworkOptions):
    """See `dvae.networks.conv`."""

    name: Literal["conv"] = "conv"
    hidden: Count = 256

    def build_encoder(self, image_shape: Sequence[int]) -> Encoder:
        """Builds the encoder; see `NetworkOptions.build_encoder`."""
        from dvae.networks.conv import ConvEncoder

        return ConvEncoder(image_shape, **self.sizes())

    def build_decoder(self, image_shape: Sequence[int], channels: int) -> Decoder:
        """Builds the decoder; see `NetworkOptions.build_decoder`."""
        from dvae.networks.conv import ConvDecoder

        return ConvDecoder((channels, *image_shape[1:]), **self.sizes())
