"""Base class of priors over codes."""

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn

from dvae.distributions import gumbel_noise, log_softmax, one_hot

__all__ = ["Prior"]


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
    """

    depends_on_draw: bool = True

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
            z: One-hot or relaxed codes, (..., N, K); l_n may depend on z_<n only.
            context: The level above, in a hierarchy of codes.

        Returns:
            Unnormalised log-probabilities, (..., N, K) or a shape that broadcasts to it.
        """

    def log_prob(self, codes: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-probability of codes in nats: (..., N) → (...)."""
        z = one_hot(codes, self.num_categories, self._like().dtype)
        log_probs = log_softmax(self.conditional_logits(z, context)).expand(*codes.shape, -1)
        return log_probs.gather(-1, codes.unsqueeze(-1)).squeeze(-1).sum(-1)

    def sample(
        self, count: int, context: Tensor | None = None, generator: Generator | None = None
    ) -> Tensor:
        """Draws codes one latent after the other, (count, N), int64."""
        like = self._like()
        shape, device = (count, self.num_latents, self.num_categories), like.device
        noise = gumbel_noise(shape, dtype=like.dtype, device=device, generator=generator)
        z = torch.zeros(shape, dtype=like.dtype, device=device)
        codes = torch.zeros(shape[:-1], dtype=torch.int64, device=device)
        for n in range(self.num_latents):
            logits = self.conditional_logits(z, context).expand(shape)[:, n]
            codes[:, n] = (logits + noise[:, n]).argmax(-1)
            z[:, n] = one_hot(codes[:, n], self.num_categories, z.dtype)
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

    def _like(self) -> Tensor:
        """A tensor of the dtype and on the device that this prior works in."""
        return next(itertools.chain(self.parameters(), self.buffers()), torch.zeros(()))
