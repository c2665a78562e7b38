"""Random changes of training images."""

import torch
from torch import Generator, Tensor

__all__ = ["shift"]


def shift(images: Tensor, most: int, generator: Generator) -> Tensor:
    """Moves each image by a random number of pixels; the pixels at its edges are repeated.

    Args:
        images: (B, C, H, W).
        most: Largest distance in each direction, in pixels; both distances are uniform.
        generator: Source of randomness on the CPU, so that all devices draw the same.

    Returns:
        Images of the same shape.
    """
    count, height, width = len(images), *images.shape[-2:]
    moves = torch.randint(-most, most + 1, (2, count, 1), generator=generator)
    rows, columns = (
        (torch.arange(size) + move).clamp(0, size - 1).to(images.device)
        for size, move in zip((height, width), moves, strict=True)
    )
    image = torch.arange(count, device=images.device)
    # Indices on both sides of the channels put these last.
    return images[image[:, None, None], :, rows[:, :, None], columns[:, None, :]].movedim(-1, 1)
