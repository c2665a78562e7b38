"""Options of the networks in `resnet.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from dvae.errors import UserError
from dvae.networks.options import Activation, NetworkOptions, Normalization
from dvae.options import Count

if TYPE_CHECKING:
    from dvae.networks.base import Decoder, Encoder

__all__ = ["ResNetOptions"]


class ResNetOptions(NetworkOptions):
    """See `dvae.networks.resnet`.

    Attributes:
        num_categories: K, at most 8,192; all codes of the grid share one codebook.
        embedding_dim: D, the length of the codebook's vectors.
        downsample: d; an image of H × W pixels has ceil(H / d) × ceil(W / d) codes.
        channels: Channels of the residual blocks.
        blocks: Residual blocks in the encoder, and in the decoder.
        activation: Activation before each convolution of a block.
        normalization: Normalization before each activation.
        groups: G, groups in which the codes are drawn, row by row, each given those before.
    """

    name: Literal["resnet"] = "resnet"
    num_categories: Annotated[int, Field(ge=2, le=8192)] = 512
    embedding_dim: Count = 64
    downsample: Literal[2, 4, 8] = 4
    channels: Count = 128
    blocks: Count = 2
    activation: Activation = "relu"
    normalization: Normalization = "none"
    groups: Count = 1

    @property
    def sequential(self) -> str:
        """See `NetworkOptions`."""
        return f"model.groups={self.groups}" if self.groups > 1 else ""

    def check_images(self, image_shape: Sequence[int]) -> None:
        """Refuses a number of groups that does not divide the number of codes.

        Raises:
            UserError: If there is a rest.
        """
        rows, columns = self.grid(image_shape)
        if rows * columns % self.groups:
            raise UserError(
                f"model.groups: expected a divisor of {rows} × {columns} latents, found "
                f"{self.groups}"
            )

    def grid(self, image_shape: Sequence[int]) -> tuple[int, ...]:
        """Codes from top to bottom and from left to right."""
        _, height, width = image_shape
        return (-(-height // self.downsample), -(-width // self.downsample))

    def build_encoder(self, image_shape: Sequence[int]) -> Encoder:
        """Builds the encoder; see `NetworkOptions.build_encoder`."""
        from dvae.networks.grids import GroupedGridEncoder
        from dvae.networks.resnet import ResNetEncoder

        encoder = ResNetEncoder(
            image_shape[0], self.num_categories, downsample=self.downsample, **self._sizes()
        )
        if self.groups == 1:
            return encoder
        grid, groups = self.grid(image_shape), self.groups
        return GroupedGridEncoder(
            encoder, grid, self.num_categories, groups=groups, **self._sizes()
        )

    def build_decoder(self, image_shape: Sequence[int], channels: int) -> Decoder:
        """Builds the decoder; see `NetworkOptions.build_decoder`."""
        from dvae.networks.resnet import ResNetDecoder

        return ResNetDecoder(
            (channels, *image_shape[1:]),
            self.grid(image_shape),
            self.num_categories,
            embedding_dim=self.embedding_dim,
            downsample=self.downsample,
            **self._sizes(),
        )

    def _sizes(self) -> dict[str, Any]:
        """The arguments that encoder and decoder share."""
        names = ("channels", "blocks", "activation", "normalization")
        return {name: getattr(self, name) for name in names}
