"""Logits of binary splits in place of a softmax, for any encoder."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from dvae.distributions import working_dtype
from dvae.networks.base import Encoder

__all__ = ["CatnatEncoder", "Splits"]

_FEW = 64
"""Categories up to which a product with all paths is faster than a loop over the levels."""


class Splits(nn.Module):
    """Scores of the splits of a binary tree → log-probabilities of the categories at its leaves.

    Splits are numbered 1 … K − 1 from the root, and split i leads to 2i and 2i + 1; a number above
    K − 1 is that of a leaf. From a split with the score s, the probability of 2i + 1 is
    σ(s + ln(leaves below 2i + 1 / leaves below 2i)): equal scores of 0 give the uniform
    distribution, also if K is no power of 2, where leaves lie at two depths.

    Args:
        num_categories: K, at least 2.

    Attributes:
        leaves: How many leaves lie below the left and the right side of each split, (2, K − 1).
        paths: Which steps lead to each leaf, (2 (K − 1), K); None if there are many categories.

    Example:
        >>> Splits(3)(torch.zeros(2)).exp()
        tensor([0.3333, 0.3333, 0.3333])
    """

    leaves: Tensor
    paths: Tensor | None

    def __init__(self, num_categories: int) -> None:
        super().__init__()
        nodes = range(1, num_categories)
        leaves = [0] * num_categories + [1] * num_categories
        for node in reversed(nodes):
            leaves[node] = leaves[2 * node] + leaves[2 * node + 1]
        counts = [[leaves[2 * node + side] for node in nodes] for side in (0, 1)]
        self.register_buffer("leaves", torch.tensor(counts, dtype=torch.float32), persistent=False)
        paths = _paths(num_categories) if num_categories <= _FEW else None
        self.register_buffer("paths", paths, persistent=False)

    def forward(self, scores: Tensor) -> Tensor:
        """Scores (..., K − 1), of any size → log p (..., K), normalised and finite."""
        dtype = working_dtype(scores.dtype)
        left, right = self.leaves.to(dtype)
        scores = scores.to(dtype) + (right / left).log()
        steps = logsigmoid(torch.cat([-scores, scores], -1))
        if self.paths is None:
            return _level_by_level(*steps.chunk(2, -1))
        # Under autocast, the product would be rounded.
        with torch.autocast(scores.device.type, enabled=False):
            return steps @ self.paths.to(dtype)


def _paths(num_categories: int) -> Tensor:
    """Which steps lead to a leaf: 1 or 0, (2 (K − 1), K); first the steps to the left."""
    paths = torch.zeros(2, num_categories - 1, num_categories)
    for leaf in range(num_categories):
        node = leaf + num_categories
        while node > 1:
            paths[node % 2, node // 2 - 1, leaf] = 1
            node //= 2
    return paths.flatten(0, 1)


def _level_by_level(left: Tensor, right: Tensor) -> Tensor:
    """Log-probabilities of both steps at each split (..., K − 1) → those of the leaves (..., K)."""
    level, above = torch.zeros_like(left[..., :1]), left[..., :0]
    for depth in range(left.shape[-1].bit_length() + 1):
        # The first nodes of a level are splits, the others leaves.
        place = slice(2**depth - 1, 2 ** (depth + 1) - 1)
        splits, ends = level.tensor_split([left[..., place].shape[-1]], -1)
        above = torch.cat([above, ends], -1)
        pair = [splits + left[..., place], splits + right[..., place]]
        level = torch.stack(pair, -1).flatten(-2)
    return above


class CatnatEncoder(Encoder):
    """Turns the outputs of an encoder for each latent, scores of splits, into K logits.

    The Fisher information of a softmax's K logits is a full matrix; that of the scores of splits is
    diagonal, so that each of them is learned without regard to the others. The distributions that
    can be expressed are the same, and any estimator works with either.

    Deviations from the paper: a sigmoid at each split, the first of its two activations, since the
    second has no gradient beyond a band; any K in place of powers of 2.

    Args:
        encoder: Images (B, C, H, W) → scores (B, N, K − 1). One that draws several groups has K
            outputs for each latent, as many as its networks read; the last is left out.
        num_categories: K, at least 2.

    References:
        Manenti, Alippi 2025, arXiv 2509.24728.
    """

    def __init__(self, encoder: Encoder, num_categories: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.splits = Splits(num_categories)
        self._draws_groups = len(encoder.places) > 1

    @property
    def places(self) -> Sequence[slice]:
        """Those of the encoder."""
        return self.encoder.places

    def forward(self, images: Tensor) -> Any:
        """Images (B, C, H, W) → logits (B, N, K), or the features of an encoder of groups."""
        features = self.encoder(images)
        return features if self._draws_groups else self.splits(features)

    def logits(self, features: Any, drawn: Sequence[Tensor]) -> Tensor:
        """The logits of the next group; see `Encoder.logits`."""
        if not self._draws_groups:
            return features
        return self.splits(self.encoder.logits(features, drawn)[..., :-1])
