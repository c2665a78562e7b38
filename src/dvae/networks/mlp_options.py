"""Options of the networks in `mlp.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from dvae.networks.flat_options import FlatNetworkOptions
from dvae.options import Count

if TYPE_CHECKING:
    from dvae.networks.base import Decoder
    from dvae.networks.flat import FlatEncoder

__all__ = ["MLPOptions"]


class MLPOptions(FlatNetworkOptions):
    """See `dvae.networks.mlp`.

    Attributes:
        hidden: Widths of the encoder's hidden layers, from the image to the codes.
        decoder_hidden: Those of the decoder, from the codes to the image; None mirrors the encoder.
    """

    name: Literal["mlp"] = "mlp"
    hidden: list[Count] = Field([256, 512])
    decoder_hidden: list[Count] | None = None

    def flat_encoder(self, image_shape: Sequence[int], num_latents: int) -> FlatEncoder:
        """See `FlatNetworkOptions`."""
        from dvae.networks.mlp import MLPEncoder

        return MLPEncoder(
            image_shape,
            num_latents,
            self.num_categories,
            hidden=self.hidden,
            centered=self.centered,
            **self._layers(),
        )

    def flat_decoder(self, image_shape: Sequence[int], channels: int, num_latents: int) -> Decoder:
        """See `FlatNetworkOptions`."""
        from dvae.networks.mlp import MLPDecoder

        mirrored = self.hidden[::-1]
        return MLPDecoder(
            (channels, *image_shape[1:]),
            num_latents,
            self.num_categories,
            hidden=mirrored if self.decoder_hidden is None else self.decoder_hidden,
            code_map=self.code_map,
            **self._layers(),
        )
