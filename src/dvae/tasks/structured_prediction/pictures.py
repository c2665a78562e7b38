"""Completions of half images."""

import torch
from torch import Generator, Tensor

from dvae.distributions import gumbel_noise, one_hot
from dvae.tasks.structured_prediction.model import StochasticNetwork, halves
from dvae.training.pictures import picture_grid

__all__ = ["completions"]

_NUM_COMPLETIONS = 4


@torch.no_grad()
def completions(
    network: StochasticNetwork, images: Tensor, generator: Generator | None = None
) -> tuple[Tensor, Tensor]:
    """A grid with one column per image: upper half, four drawn completions, whole image.

    Args:
        network: Predicts lower halves.
        images: Whole images, (B, C, H, W).
        generator: Source of the draws.

    Returns:
        The grid, and the codes of all layers, (4, B, L·N).
    """
    (upper, lower), mean = halves(images), network.likelihood.mean
    rows, codes = [torch.cat([upper, torch.full_like(lower, 0.5)], -2)], []
    for _ in range(_NUM_COMPLETIONS):
        drawn: list[Tensor] = []

        def draw(number: int, logits: Tensor, drawn: list[Tensor] = drawn) -> Tensor:
            noise = gumbel_noise(logits.shape, device=logits.device, generator=generator)
            drawn.append((logits + noise).argmax(-1))
            return one_hot(drawn[-1], logits.shape[-1], logits.dtype)

        rows.append(torch.cat([upper, mean(network.propagate(upper, draw)).float()], -2))
        codes.append(torch.cat(drawn, -1))
    return picture_grid(torch.cat([*rows, images]), len(images)), torch.stack(codes)
