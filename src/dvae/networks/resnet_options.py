"""Options of the networks in `resnet.py`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from dvae.errors import UserError
from dvae.networks.options import Activation, NetworkOptions, Normalization
from dvae.options import Count

if TYPE_CHECKING:
    from torch import nn

    from dvae.networks.base import Decoder, Encoder
    from dvae.networks.resnet import Trunk

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
        levels: Stochastic levels, each with half the rows and columns of the one below.
        skips: Whether the decoder and each level of the prior read all levels above, not only the
            next one.
    """

    # At the default of AdamW, the posterior collapses.
    learning_rate: ClassVar[float | None] = 3e-3
    name: Literal["resnet"] = "resnet"
    num_categories: Annotated[int, Field(ge=2, le=8192)] = 512
    embedding_dim: Count = 64
    downsample: Literal[2, 4, 8] = 4
    channels: Count = 128
    blocks: Count = 2
    activation: Activation = "relu"
    normalization: Normalization = "none"
    groups: Count = 1
    levels: Count = 1
    skips: bool = False

    @model_validator(mode="after")
    def _check_levels(self) -> Self:
        if self.groups > 1 and self.levels > 1:
            raise UserError(
                f"model.groups: expected 1 with model.levels={self.levels}, found {self.groups}"
            )
        return self

    @property
    def reads_all_levels(self) -> bool:
        """See `NetworkOptions`."""
        return self.skips

    @property
    def sequential(self) -> str:
        """See `NetworkOptions`."""
        if self.groups > 1:
            return f"model.groups={self.groups}"
        return f"model.levels={self.levels}" if self.levels > 1 else ""

    def check_images(self, image_shape: Sequence[int]) -> None:
        """Refuses groups that do not divide the codes, and levels above a single code.

        Raises:
            UserError: If there is a rest, or nothing to halve.
        """
        rows, columns = self.level_grids(image_shape)[0]
        if rows * columns % self.groups:
            raise UserError(
                f"model.groups: expected a divisor of {rows} × {columns} latents, found "
                f"{self.groups}"
            )
        most = 1 + (max(rows, columns) - 1).bit_length()
        if self.levels > most:
            raise UserError(
                f"model.levels: expected at most {most}, as each halves the {rows} × {columns} "
                f"latents of the first, found {self.levels}"
            )

    def grid(self, image_shape: Sequence[int]) -> tuple[int, ...]:
        """Codes from top to bottom and from left to right; (N,) over all levels of several."""
        grids = self.level_grids(image_shape)
        return grids[0] if self.levels == 1 else (sum(map(math.prod, grids)),)

    def level_grids(self, image_shape: Sequence[int]) -> list[tuple[int, ...]]:
        """See `NetworkOptions`."""
        sides = [self.downsample * 2**level for level in range(self.levels)]
        return [tuple(-(-size // side) for size in image_shape[1:]) for side in sides]

    def build_encoder(self, image_shape: Sequence[int]) -> Encoder:
        """Builds the encoder; see `NetworkOptions.build_encoder`."""
        from dvae.networks import grids
        from dvae.networks.resnet import ResNetEncoder

        trunk, categories = self._trunk(), self.num_categories
        encoder = ResNetEncoder(image_shape[0], categories, downsample=self.downsample, trunk=trunk)
        down = self.level_grids(image_shape)[::-1]
        if self.groups > 1:
            return grids.GroupedGridEncoder(
                encoder, down[0], categories, groups=self.groups, trunk=trunk
            )
        if self.levels == 1:
            return encoder
        networks = [
            grids.GridNetwork(down[:level], down[level], categories, trunk=trunk)
            for level in range(1, self.levels)
        ]
        pyramid = grids.PyramidEncoder(encoder, down, categories, trunk=trunk)
        return grids.LadderGridEncoder(pyramid, down, networks)

    def build_decoder(self, image_shape: Sequence[int], channels: int) -> Decoder:
        """Builds the decoder; see `NetworkOptions.build_decoder`."""
        from dvae.networks.base import BottomDecoder
        from dvae.networks.resnet import ResNetDecoder

        down = self.level_grids(image_shape)[::-1]
        decoder = ResNetDecoder(
            (channels, *image_shape[1:]),
            down if self.skips else down[-1:],
            self.num_categories,
            embedding_dim=self.embedding_dim,
            downsample=self.downsample,
            trunk=self._trunk(),
        )
        if self.levels == 1 or self.skips:
            return decoder
        return BottomDecoder(decoder, math.prod(down[-1]))

    def build_top_down(self, image_shape: Sequence[int]) -> list[nn.Module]:
        """See `NetworkOptions.build_top_down`."""
        from dvae.networks.grids import GridNetwork

        down = self.level_grids(image_shape)[::-1]
        return [
            GridNetwork(
                down[0 if self.skips else level - 1 : level],
                down[level],
                self.num_categories,
                trunk=self._trunk(),
            )
            for level in range(1, self.levels)
        ]

    def _trunk(self) -> Trunk:
        """The residual networks of encoder, decoder and whatever lies between levels."""
        from dvae.networks.resnet import Trunk

        return Trunk(self.channels, self.blocks, self.activation, self.normalization)
