"""Base class of priors over codes."""

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Generator, Tensor, nn

from dvae.distributions import gumbel_noise, log_softmax, one_hot

__all__ = ["Prior"]

_MAX_LOGITS = 2**24
"""Most logits that are computed at once to score codes: 64 MiB."""


class Prior(nn.Module, ABC):
    """p(z) = Π_n Cat(z_n; softmax(l_n)), where l_n may depend on z_<n and on a context.

    A subclass defines `conditional_logits`, from which the other methods follow. It may override
    them with faster ones.

    Args:
        grid: Shape of the grid of codes.
        num_categories: K.

    Attributes:
        grid: Shape of the grid of codes.
        num_latents: N, the product of the grid's shape.
        num_categories: K.
        depends_on_draw: Whether l_n depends on z_<n. The rate then depends on the drawn codes, and
            is part of the cost that the estimator differentiates.
        context_size: C, the length of the context; 0 if the prior ignores it.
    """

    depends_on_draw: bool = True
    context_size: int = 0

    def __init__(self, grid: Sequence[int], num_categories: int) -> None:
        super().__init__()
        self.grid = tuple(grid)
        self.num_latents = math.prod(grid)
        self.num_categories = num_categories

    @property
    def levels(self) -> Sequence[slice]:
        """The latents of each level of a hierarchy, from the image up; here, one level."""
        return [slice(0, self.num_latents)]

    @abstractmethod
    def conditional_logits(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """The logits of each latent given those before it.

        Args:
            z: One-hot or relaxed codes, (..., B, N, K); l_n may depend on z_<n only.
            context: What the codes depend on besides, such as a class or the level above in a
                hierarchy of codes, (B, C) or (1, C).

        Returns:
            Unnormalised log-probabilities, (..., B, N, K) or a shape that broadcasts to it.
        """

    def log_prob(self, codes: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-probability of codes in nats: (..., B, N) → (..., B), in bounded memory."""
        size = self.num_latents * self.num_categories
        rows = codes.reshape(-1, self.num_latents)
        contexts = None
        if context is not None:
            contexts = context.expand(*codes.shape[:-1], -1).reshape(len(rows), -1)
        parts = []
        for at in torch.arange(len(rows), device=rows.device).split(max(1, _MAX_LOGITS // size)):
            part = rows[at]
            logits = self._logits_of(part, None if contexts is None else contexts[at])
            log_probs = log_softmax(logits).expand(*part.shape, -1)
            parts.append(log_probs.gather(-1, part.unsqueeze(-1)).squeeze(-1).sum(-1))
        return torch.cat(parts).reshape(codes.shape[:-1])

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
        """Draws codes one latent after the other.

        Args:
            count: M.
            context: See `conditional_logits`; (M, C) or (1, C).
            generator: Source of randomness on the prior's device.
            temperature: Divides all logits. Below 1, probable codes become more probable: the codes
                are then not draws from p(z).
            first: The codes of the first latents, if they are given, (M, at most N).
            track: Wraps the numbers of the latents, to show progress.

        Returns:
            Codes, (M, N), int64.
        """
        codes = torch.zeros(count, self.num_latents, dtype=torch.int64, device=self._like().device)
        given = 0
        if first is not None:
            given = first.shape[-1]
            codes[:, :given] = first
        following = self._one_by_one(codes, context)
        with torch.no_grad():
            for n in track(range(self.num_latents)):
                logits = next(following)
                if n >= given:
                    noise = gumbel_noise(
                        logits.shape, dtype=logits.dtype, device=logits.device, generator=generator
                    )
                    codes[:, n] = (logits / temperature + noise).argmax(-1)
        return codes

    def complete(self, codes: Tensor, level: int, noise: Tensor) -> Tensor:
        """Draws the levels below a level of a hierarchy anew; with one level, there are none.

        Args:
            codes: (..., N).
            level: Index of the level, counted from the image; it and those above stay.
            noise: Standard Gumbel noise, (..., N, K) or a shape that broadcasts to it.

        Returns:
            (..., N).
        """
        return codes

    def _logits_of(self, codes: Tensor, context: Tensor | None) -> Tensor:
        """`conditional_logits` of integer codes (M, N); override it where a look-up is faster."""
        return self.conditional_logits(
            one_hot(codes, self.num_categories, self._like().dtype), context
        )

    def _one_by_one(self, codes: Tensor, context: Tensor | None) -> Iterator[Tensor]:
        """Yields the logits of one latent after the other, (M, K).

        Before it asks for the next ones, the caller writes the code of the latent into `codes`,
        (M, N). Override this where what was computed for earlier latents can be kept.
        """
        for n in range(self.num_latents):
            yield self._logits_of(codes, context).expand(*codes.shape, -1)[:, n]

    def _like(self) -> Tensor:
        """A tensor of the dtype and on the device that this prior works in."""
        return next(itertools.chain(self.parameters(), self.buffers()), torch.zeros(()))
