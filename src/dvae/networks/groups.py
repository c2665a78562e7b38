"""Codes that are drawn in groups, each given those drawn before."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor

from dvae.networks.base import Encoder, FeatureEncoder

__all__ = ["GroupedEncoder", "in_order", "places_of"]

_Part = TypeVar("_Part")


def places_of(sizes: Sequence[int]) -> tuple[slice, ...]:
    """Consecutive places: the sizes of groups → their latents.

    Example:
        >>> places_of([3, 2])
        (slice(0, 3, None), slice(3, 5, None))
    """
    ends = [sum(sizes[: number + 1]) for number in range(len(sizes))]
    return tuple(slice(end - size, end) for size, end in zip(sizes, ends, strict=True))


def in_order(parts: Sequence[_Part], places: Sequence[slice]) -> list[_Part]:
    """Sorts the parts of groups, which are in the order of drawing, by their latents."""
    order = sorted(range(len(places)), key=lambda number: places[number].start or 0)
    return [parts[number] for number in order]


class GroupedEncoder(Encoder):
    """q(z|x) = Π_g q(z_g|x, z_<g): each group reads the image and all groups before it.

    The logits are those of an encoder for all latents plus, from the second group on, a correction
    that reads the encoder's features and the codes drawn so far.

    Args:
        encoder: An encoder for all latents.
        sizes: Latents of each group.

    References:
        Rolfe 2017, arXiv 1609.02200.
    """

    def __init__(self, encoder: FeatureEncoder, sizes: Sequence[int]) -> None:
        super().__init__()
        self.encoder = encoder
        self._places = places_of(sizes)

    @abstractmethod
    def correction(self, group: int, z: Tensor, features: Tensor) -> Tensor:
        """What codes drawn before add to the logits of a group.

        Args:
            group: Its number, from 1 on.
            z: The codes of all groups before it, (..., B, n, K).
            features: Features of the images, (B, …).

        Returns:
            (..., B, latents of the group, K).
        """

    @property
    def places(self) -> Sequence[slice]:
        """From the first latent to the last."""
        return self._places

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, C, H, W) → logits (B, N, K) without corrections, and features."""
        features = self.encoder.features(images)
        return self.encoder.to_logits(features), features

    def logits(self, features: tuple[Tensor, Tensor], drawn: Sequence[Tensor]) -> Tensor:
        """The logits of the next group; see `Encoder.logits`."""
        group = len(drawn)
        own = features[0][..., self._places[group], :]
        if not group:
            return own
        return own + self.correction(group, torch.cat(list(drawn), -2), features[1])
