"""Autoregressive priors: the logits of each latent are a network's output for those before it.

A context (B, C) is added to the hidden units, after a linear map; without one, nothing is added.
Training starts at the uniform prior, because the last layer starts at zero.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, linear, pad, scaled_dot_product_attention

from dvae.networks.base import PreciseLinear
from dvae.priors.base import Prior

__all__ = ["MaskedMLPPrior", "TransformerPrior"]

_SIZE = 0.4
"""Standard deviation of new weights, which are scaled down where they are used: an optimizer then
moves them by the same share at any width, and the networks learn well at the learning rate of the
default run, which suits layers with batch normalization."""


def _scale(fan_in: float | Tensor) -> Any:
    """The factor of weights by which a sum over so many inputs has a variance of about 1."""
    return fan_in**-0.5 / _SIZE


class _Linear(nn.Linear):
    """A linear layer whose weights are scaled."""

    def __init__(self, inputs: int, outputs: int, *, bias: bool = True) -> None:
        super().__init__(inputs, outputs, bias=bias)
        _reset(self)

    def forward(self, features: Tensor) -> Tensor:
        """Features (..., D) → (..., D')."""
        return linear(features, self.weight * _scale(self.in_features), self.bias)


class _Head(PreciseLinear, _Linear):
    """A linear layer that computes logits of codes."""


class _MaskedLinear(nn.Linear):
    """A linear layer with scaled weights, whose outputs see the inputs of at most their own degree.

    Args:
        inputs: Degrees of the inputs, (D,).
        outputs: Degrees of the outputs, (D',).
        active: Largest number of inputs that are not zero; all by default.
    """

    mask: Tensor

    def __init__(self, inputs: Tensor, outputs: Tensor, active: int | None = None) -> None:
        super().__init__(len(inputs), len(outputs))
        mask = (inputs <= outputs.unsqueeze(-1)).to(self.weight.dtype)
        seen = mask.mean(-1, keepdim=True) * (active or len(inputs))
        self.register_buffer("mask", mask * _scale(seen.clamp_min(1)), persistent=False)
        _reset(self)

    def forward(self, features: Tensor) -> Tensor:
        """Features (..., D) → (..., D')."""
        return linear(features, self.weight * self.mask, self.bias)


class _MaskedHead(PreciseLinear, _MaskedLinear):
    """A masked layer that computes logits of codes."""


class _MaskedBlock(nn.Module):
    """x + f(x), where f is twice an activation and a masked linear layer."""

    def __init__(self, degrees: Tensor, dropout: float) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.SiLU(),
            _MaskedLinear(degrees, degrees),
            nn.SiLU(),
            nn.Dropout(dropout),
            _MaskedLinear(degrees, degrees),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class MaskedMLPPrior(Prior):
    """A fully connected network with residual blocks, whose masks hide later latents.

    Each hidden unit has a degree: it sees the latents up to this one, and the logits of latent n
    see the hidden units of degrees below n. One pass computes all logits; N passes draw codes.

    Deviations from the paper: residual blocks, degrees that are spread evenly instead of drawn, and
    one order of the latents.

    Args:
        grid: Shape of the grid of codes.
        num_categories: K.
        width: Hidden units of each layer.
        blocks: Residual blocks.
        dropout: Probability that a hidden unit is dropped in training.
        context_size: C, the length of a context; 0 for none.

    References:
        Germain, Gregor, Murray, Larochelle 2015 (MADE), arXiv 1502.03509.
    """

    def __init__(
        self,
        grid: Sequence[int],
        num_categories: int,
        *,
        width: int,
        blocks: int,
        dropout: float,
        context_size: int,
    ) -> None:
        super().__init__(grid, num_categories)
        self.context_size = context_size
        latents = torch.arange(self.num_latents).repeat_interleave(num_categories)
        hidden = torch.arange(width) * max(1, self.num_latents - 1) // width
        self.start = _MaskedLinear(latents, hidden, self.num_latents)
        self.blocks = nn.Sequential(*(_MaskedBlock(hidden, dropout) for _ in range(blocks)))
        self.end = nn.Sequential(nn.SiLU(), nn.Dropout(dropout))
        self.head = _MaskedHead(hidden + 1, latents)
        nn.init.zeros_(self.head.weight)
        self.context, self.context_head = None, None
        if context_size:
            self.context = _Linear(context_size, width, bias=False)
            # No hidden unit is seen by latent 0.
            self.context_head = _Head(context_size, len(latents), bias=False)
            nn.init.zeros_(self.context_head.weight)

    def conditional_logits(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """The logits of each latent given those before it; see `Prior`."""
        features = self.start(z.flatten(-2))
        if context is not None and self.context is not None:
            features = features + self.context(context)
        logits = self.head(self.end(self.blocks(features)))
        if context is not None and self.context_head is not None:
            logits = logits + self.context_head(context)
        return logits.unflatten(-1, z.shape[-2:])


class _CausalBlock(nn.Module):
    """x + attention(x), then x + MLP(x), each after layer normalization.

    Args:
        width: D.
        heads: Heads of the attention, a divisor of D.
        dropout: Probability that an output of attention or MLP is dropped in training.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.normalization = nn.LayerNorm(width)
        self.projections = _Linear(width, 3 * width)
        self.mixed = nn.Sequential(_Linear(width, width), nn.Dropout(dropout))
        self.body = nn.Sequential(
            nn.LayerNorm(width),
            _Linear(width, 4 * width),
            nn.GELU(),
            _Linear(4 * width, width),
            nn.Dropout(dropout),
        )

    def forward(self, x: Tensor, past: Tensor | None = None, n: int = 0) -> Tensor:
        """Features of all latents, (M, N, D) → (M, N, D), or of one of them, (M, 1, D).

        Args:
            x: Features.
            past: For one latent, keys and values of those before it, to which its own are added:
                (2, M, heads, N, D / heads).
            n: The place of that latent.
        """
        parts = self.projections(self.normalization(x)).unflatten(-1, (3, self.heads, -1))
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        if past is not None:
            past[:, :, :, n : n + 1] = torch.stack([key, value])
            key, value = past[:, :, :, : n + 1]
        mixed = scaled_dot_product_attention(query, key, value, is_causal=past is None)
        x = x + self.mixed(mixed.transpose(1, 2).flatten(-2))
        return x + self.body(x)


class TransformerPrior(Prior):
    """A causal transformer over the latents of a grid, row by row, which share one codebook.

    The input for latent n is z_(n−1) times a K × D matrix, which is the same for one-hot and
    relaxed z, plus a learned position. Codes are drawn in N passes that keep keys and values.

    Args:
        grid: Shape of the grid of codes.
        num_categories: K.
        width: D, a multiple of `heads`.
        blocks: Blocks of attention and MLP.
        heads: Heads of the attention.
        dropout: Probability that an output of attention or MLP is dropped in training.
        context_size: C, the length of a context; 0 for none.

    References:
        Vaswani et al. 2017, arXiv 1706.03762; Esser, Rombach, Ommer 2021, arXiv 2012.09841.
    """

    def __init__(
        self,
        grid: Sequence[int],
        num_categories: int,
        *,
        width: int,
        blocks: int,
        heads: int,
        dropout: float,
        context_size: int,
    ) -> None:
        super().__init__(grid, num_categories)
        self.context_size = context_size
        self.heads = heads
        # No `weight`, so that weight decay leaves them alone.
        self.codebook = nn.Parameter(torch.randn(num_categories, width))
        self.positions = nn.Parameter(torch.randn(self.num_latents, width))
        self.dropped = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(_CausalBlock(width, heads, dropout) for _ in range(blocks))
        self.end = nn.LayerNorm(width)
        self.head = _Head(width, num_categories)
        nn.init.zeros_(self.head.weight)
        self.context = _Linear(context_size, width, bias=False) if context_size else None

    def conditional_logits(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """The logits of each latent given those before it; see `Prior`."""
        return self._logits(z[..., :-1, :] @ self.codebook, context)

    def _logits_of(self, codes: Tensor, context: Tensor | None) -> Tensor:
        return self._logits(embedding(codes[..., :-1], self.codebook), context)

    def _logits(self, vectors: Tensor, context: Tensor | None) -> Tensor:
        """Vectors of all latents but the last, (..., B, N − 1, D) → logits (..., B, N, K)."""
        # What is known before latent n stands at n; before the first one, nothing is.
        x = pad(vectors, (0, 0, 1, 0)) + self._places(context)
        leading = x.shape[:-2]
        x = self.dropped(x.reshape(-1, *x.shape[-2:]))
        for block in self.blocks:
            x = block(x)
        return self.head(self.end(x)).reshape(*leading, self.num_latents, -1)

    def _places(self, context: Tensor | None) -> Tensor:
        """Positions (N, D), with a context (B, N, D)."""
        if context is None or self.context is None:
            return self.positions
        return self.positions + self.context(context).unsqueeze(-2)

    def _one_by_one(self, codes: Tensor, context: Tensor | None) -> Iterator[Tensor]:
        places = self._places(context).expand(len(codes), -1, -1)
        size = places.shape[-1] // self.heads
        shape = (len(self.blocks), 2, len(codes), self.heads, self.num_latents, size)
        past = places.new_zeros(shape)
        for n in range(self.num_latents):
            x = places[:, n : n + 1]
            if n:
                x = x + self.codebook[codes[:, n - 1 : n]]
            for block, own in zip(self.blocks, past, strict=True):
                x = block(x, own, n)
            yield self.head(self.end(x))[:, 0]


def _reset(layer: nn.Linear) -> None:
    nn.init.normal_(layer.weight, std=_SIZE)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
