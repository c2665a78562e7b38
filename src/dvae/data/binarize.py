"""Binarization of grey images."""

import torch
from torch import Generator, Tensor

__all__ = ["BINARIZATIONS", "binarize", "to_unit"]

BINARIZATIONS = ("dynamic", "fixed", "none")
"""Drawn anew for each batch; drawn once from a fixed seed; grey pixels as soft targets."""


def binarize(images: Tensor, generator: Generator | None = None) -> Tensor:
    """Draws each pixel as Bernoulli(v / 255).

    Args:
        images: uint8 images of any shape, values v in 0 … 255.
        generator: Source of randomness on the images' device; the global one by default.

    Returns:
        uint8 images of that shape with values 0 and 255 only.

    References:
        Salakhutdinov, Murray 2008, for MNIST.
    """
    # A uniform integer in 0 … 254 lies below v with probability v / 255, exactly.
    threshold = torch.randint(
        255, images.shape, dtype=torch.uint8, device=images.device, generator=generator
    )
    return (threshold < images).to(torch.uint8) * 255


def to_unit(images: Tensor) -> Tensor:
    """uint8 images to float32 in [0, 1]."""
    return images.float() / 255
