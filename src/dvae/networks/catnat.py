"""Logits of binary splits in place of a softmax, for any encoder."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from dvae.distributions import working_dtype
from dvae.networks.base import Encoder

__all__ = ["CatnatEncoder", "split_log_probs"]


def split_log_probs(scores: Tensor) -> Tensor:
    """Log-probabilities of categories at the leaves of a binary tree with a score at each split.

    Splits are numbered 1 … K − 1 from the root, and split i leads to 2i and 2i + 1; a number above
    K − 1 is that of a leaf. From a split with the score s, the probability of 2i + 1 is
    σ(s + ln(leaves below 2i + 1 / leaves below 2i)): equal scores of 0 give the uniform
    distribution, also if K is no power of 2, where leaves lie at two depths.

    Args:
        scores: (..., K − 1), of any size.

    Returns:
        log p, (..., K): normalised, and finite for finite scores.

    Example:
        >>> split_log_probs(torch.zeros(2)).exp()
        tensor([0.3333, 0.3333, 0.3333])
    """
    scores = scores.to(working_dtype(scores.dtype))
    num_categories = scores.shape[-1] + 1
    leaves = [0] * num_categories + [1] * num_categories
    for node in reversed(range(1, num_categories)):
        leaves[node] = leaves[2 * node] + leaves[2 * node + 1]
    ratios = [leaves[2 * i + 1] / leaves[2 * i] for i in range(1, num_categories)]
    scores = scores + torch.tensor(ratios, dtype=scores.dtype, device=scores.device).log()
    level, above = torch.zeros_like(scores[..., :1]), scores[..., :0]
    for depth in range((num_categories - 1).bit_length() + 1):
        # The first nodes of a level are splits, the others leaves.
        own = scores[..., 2**depth - 1 : 2 ** (depth + 1) - 1]
        splits, ends = level.tensor_split([own.shape[-1]], -1)
        above = torch.cat([above, ends], -1)
        level = torch.stack([splits + logsigmoid(-own), splits + logsigmoid(own)], -1).flatten(-2)
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

    References:
        Manenti, Alippi 2025, arXiv 2509.24728.
    """

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder
        self._draws_groups = len(encoder.places) > 1

    @property
    def places(self) -> Sequence[slice]:
        """Those of the encoder."""
        return self.encoder.places

    def forward(self, images: Tensor) -> Any:
        """Images (B, C, H, W) → logits (B, N, K), or the features of an encoder of groups."""
        features = self.encoder(images)
        return features if self._draws_groups else split_log_probs(features)

    def logits(self, features: Any, drawn: Sequence[Tensor]) -> Tensor:
        """The logits of the next group; see `Encoder.logits`."""
        if not self._draws_groups:
            return features
        return split_log_probs(self.encoder.logits(features, drawn)[..., :-1])
