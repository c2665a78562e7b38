"""Options of the networks in `mlp.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from dvae.networks.options import FlatNetworkOptions
from dvae.options import Count

if TYPE_CHECKING:
    from dvae.networks.base import Decoder, Encoder

__all__ = ["MLPOptions"]


class MLPOptions(FlatNetworkOptions):
    """See `dvae.networks.mlp`."""

    name: Literal["mlp"] = "mlp"
    hidden: list[Count] = Field([256, 512])

    def build_encoder(self, image_shape: Sequence[int]) -> Encoder:
        """Builds the encoder; see `NetworkOptions.build_encoder`."""
        from dvae.networks.mlp import MLPEncoder

        return MLPEncoder(image_shape, **self.sizes())

    def build_decoder(self, image_shape: Sequence[int], channels: int) -> Decoder:
        """Builds the decoder; see `NetworkOptions.build_decoder`."""
        from dvae.networks.mlp import MLPDecoder

        return MLPDecoder((channels, *image_shape[1:]), **self.sizes())
