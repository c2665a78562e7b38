"""Hierarchies of codes: each level's distribution depends on the levels above."""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Generator, Tensor, nn

from dvae.distributions import gumbel_noise, one_hot
from dvae.networks.groups import places_of
from dvae.priors.base import Prior

__all__ = ["TopDownPrior"]


class TopDownPrior(Prior):
    """p(z) = p(z_L) Π_l p(z_l|z_>l): the latents of a level are independent given those above.

    z_1 is next to the image. The latents are in the order of generation: those of the top level
    come first.

    Args:
        top: p(z_L), any prior.
        networks: For each level below the top, from z_{L−1} to z_1, a network that turns codes
            (..., n, K) of the level above, or of all above, into logits.
        sizes: Latents of each level, from the image up.
        skips: Whether the networks read all levels above, not only the next one.
    """

    def __init__(
        self, top: Prior, networks: Sequence[nn.Module], sizes: Sequence[int], *, skips: bool
    ) -> None:
        super().__init__((sum(sizes),), top.num_categories)
        self.top = top
        self.context_size = top.context_size
        self.networks = nn.ModuleList(networks)
        self.skips = skips
        self._sizes = list(sizes)

    @property
    def levels(self) -> Sequence[slice]:
        """The latents of each level, from the image up."""
        return places_of(self._sizes[::-1])[::-1]

    def conditional_logits(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """The logits of each latent given those of the levels above, (..., N, K)."""
        places = self.levels[::-1]
        own = z[..., places[0], :]
        top = self.top.conditional_logits(own, context).expand_as(own)
        below = (self._below(z, number) for number in range(1, len(places)))
        return torch.cat([top, *below], -2)

    def sample(
        self,
        count: int,
        context: Tensor | None = None,
        generator: Generator | None = None,
        *,
        temperature: float = 1.0,
        first: Tensor | None = None,
        track: Callable[[Sequence[int]], Iterable[int]] = iter,
    ) -> Tensor:
        """Draws level by level; see `Prior.sample`."""
        own = self._sizes[-1]
        top = self.top.sample(
            count,
            context,
            generator,
            temperature=temperature,
            first=None if first is None else first[:, :own],
            track=track,
        )
        like = self._like()
        shape = (count, self.num_latents, self.num_categories)
        noise = gumbel_noise(shape, dtype=like.dtype, device=like.device, generator=generator)
        codes = torch.zeros(shape[:-1], dtype=top.dtype, device=top.device)
        codes[:, :own] = top
        for number in range(1, len(self._sizes)):
            # The arg max of logits / temperature + noise.
            self._draw(codes, number, temperature * noise)
            if first is not None:
                codes[:, : first.shape[-1]] = first
        return codes

    def complete(self, codes: Tensor, level: int, noise: Tensor) -> Tensor:
        """Draws the levels below a level anew; see `Prior.complete`."""
        codes = codes.clone()
        for number in range(len(self._sizes) - level, len(self._sizes)):
            self._draw(codes, number, noise)
        return codes

    def _draw(self, codes: Tensor, number: int, noise: Tensor) -> None:
        """Draws a level, counted from the top, in place."""
        place = self.levels[::-1][number]
        z = one_hot(codes, self.num_categories, self._like().dtype)
        codes[..., place] = (self._below(z, number) + noise[..., place, :]).argmax(-1)

    def _below(self, z: Tensor, number: int) -> Tensor:
        """Logits of a level, counted from the top, given all codes z."""
        places = self.levels[::-1]
        first = places[0] if self.skips else places[number - 1]
        return self.networks[number - 1](z[..., first.start : places[number].start, :])
