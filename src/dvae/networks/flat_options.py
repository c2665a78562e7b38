"""Base class of the options of networks whose codes have no position in the image."""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from dvae.errors import UserError
from dvae.networks.options import Activation, NetworkOptions, Normalization
from dvae.options import Count, Fraction

if TYPE_CHECKING:
    from torch import nn

    from dvae.networks.base import Decoder, Encoder
    from dvae.networks.flat import CodeNetwork, FlatEncoder

__all__ = ["FlatNetworkOptions"]


class FlatNetworkOptions(NetworkOptions):
    """Networks whose codes have no position in the image: the grid is a row of N codes.

    Attributes:
        num_latents: Latents of a level.
        activation: Activation of the hidden layers.
        normalization: Normalization before each activation.
        dropout: Share of the units of hidden linear layers that are left out in training.
        groups: G, groups in which the codes of one level are drawn, each given those before.
        levels: Stochastic levels: a count, each of `num_latents`, or the latents of each level from
            the image up.
        inference: Whether the codes of several levels are drawn from the image up ("bottom_up") or
            from the top down, after a pass of deterministic features ("ladder").
        skips: Whether the decoder and each level of the prior read all levels above, not only the
            next one.
        between: Hidden layers of the networks between levels or groups.
        code_map: How networks read codes; see `dvae.networks.base.CodeMap`.
        centered: Whether the encoder subtracts a running mean from what the last linear map before
            each draw reads; see `dvae.networks.base.Centre`.
        init: How weights are drawn: as torch does, or as Glorot, Bengio 2010 do, with biases of 0.
    """

    num_latents: Count = 20
    activation: Activation = "silu"
    normalization: Normalization = "batch"
    dropout: Fraction = 0.0
    groups: Count = 1
    levels: Count | list[Count] = 1
    inference: Literal["ladder", "bottom_up"] = "ladder"
    skips: bool = False
    between: list[Count] = Field([256])
    code_map: Literal["one_hot", "hypercube"] = "one_hot"
    centered: bool = False
    init: Literal["default", "glorot"] = "default"

    @model_validator(mode="after")
    def _check_groups(self) -> Self:
        if self.levels == []:
            raise UserError("model.levels: expected at least one level, found []")
        if self.groups > 1 and len(self.sizes) > 1:
            raise UserError(
                f"model.groups: expected 1 with model.levels={self.levels}, found {self.groups}"
            )
        if self.sizes[0] % self.groups:
            raise UserError(
                f"model.groups: expected a divisor of {self.sizes[0]} latents, found {self.groups}"
            )
        if self.code_map == "hypercube" and self.num_categories & (self.num_categories - 1):
            raise UserError(
                "model.num_categories: expected a power of 2 with model.code_map=hypercube, found "
                f"{self.num_categories}"
            )
        return self

    @property
    def sizes(self) -> list[int]:
        """Latents of each level, from the image up."""
        levels = self.levels
        return [self.num_latents] * levels if isinstance(levels, int) else levels

    @property
    def reads_all_levels(self) -> bool:
        """See `NetworkOptions`."""
        return self.skips

    @property
    def sequential(self) -> str:
        """See `NetworkOptions`."""
        if self.groups > 1:
            return f"model.groups={self.groups}"
        return f"model.levels={self.levels}" if len(self.sizes) > 1 else ""

    def grid(self, image_shape: Sequence[int]) -> tuple[int, ...]:
        """(N,) over all levels, for images of any shape."""
        return (sum(self.sizes),)

    def level_grids(self, image_shape: Sequence[int]) -> list[tuple[int, ...]]:
        """See `NetworkOptions`."""
        return [(size,) for size in self.sizes]

    @abstractmethod
    def flat_encoder(self, image_shape: Sequence[int], num_latents: int) -> FlatEncoder:
        """An encoder of so many latents."""

    @abstractmethod
    def flat_decoder(self, image_shape: Sequence[int], channels: int, num_latents: int) -> Decoder:
        """A decoder of so many latents; see `build_decoder`."""

    def build_encoder(self, image_shape: Sequence[int]) -> Encoder:
        """Builds the encoder; see `NetworkOptions.build_encoder`."""
        from dvae.networks import flat

        sizes = self.sizes
        if not self.sequential:
            return self._start(self.flat_encoder(image_shape, sizes[0]))
        if self.groups > 1:
            sizes = [sizes[0] // self.groups] * self.groups
        elif self.inference == "bottom_up":
            encoder = self.flat_encoder(image_shape, sizes[0])
            networks = [
                self._between(below, above, centered=self.centered)
                for below, above in itertools.pairwise(sizes)
            ]
            return self._start(flat.BottomUpEncoder(encoder, sizes, networks))
        else:
            sizes = sizes[::-1]
        encoder = self.flat_encoder(image_shape, sum(sizes))
        networks = [
            self._between(
                sum(sizes[:group]), sizes[group], features=encoder.width, centered=self.centered
            )
            for group in range(1, len(sizes))
        ]
        return self._start(flat.GroupedFlatEncoder(encoder, sizes, networks))

    def build_decoder(self, image_shape: Sequence[int], channels: int) -> Decoder:
        """Builds the decoder; see `NetworkOptions.build_decoder`."""
        from dvae.networks.base import BottomDecoder

        sizes = self.sizes
        if len(sizes) == 1 or self.skips:
            return self._start(self.flat_decoder(image_shape, channels, sum(sizes)))
        decoder = self.flat_decoder(image_shape, channels, sizes[0])
        return self._start(BottomDecoder(decoder, sizes[0]))

    def build_top_down(self, image_shape: Sequence[int]) -> list[nn.Module]:
        """See `NetworkOptions.build_top_down`."""
        down = self.sizes[::-1]
        above = [sum(down[:n]) if self.skips else down[n - 1] for n in range(1, len(down))]
        return [
            self._start(self._between(read, size))
            for read, size in zip(above, down[1:], strict=True)
        ]

    def _layers(self) -> dict[str, Any]:
        """The arguments that all networks share."""
        return {
            "activation": self.activation,
            "normalization": self.normalization,
            "dropout": self.dropout,
        }

    def _between(self, codes: int, num_latents: int, **options: Any) -> CodeNetwork:
        """A network between levels or groups."""
        from dvae.networks.flat import CodeNetwork

        return CodeNetwork(
            codes,
            num_latents,
            self.num_categories,
            hidden=self.between,
            code_map=self.code_map,
            **self._layers(),
            **options,
        )

    def _start(self, network: Any) -> Any:
        """Draws the initial weights as `init` says."""
        from dvae.networks.base import glorot

        if self.init == "glorot":
            glorot(network)
        return network
