"""Binarization of grey images."""

import torch
from torch import Generator, Tensor

__all__ = ["binarize", "redraw", "to_unit"]


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


def redraw(images: Tensor, generator: Generator | None = None) -> Tensor:
    """Draws each pixel as Bernoulli(v / 255), to within 2^-16; fast, for every training step.

    Uses 16 random bits per pixel and a fraction of the time of `binarize`. Black and white pixels
    do not change.

    Args:
        images: uint8 images of any shape, values v in 0 … 255.
        generator: Source of randomness on the images' device; the global one by default.

    Returns:
        float32 images of that shape with values 0 and 1 only.
    """
    count = images.numel()
    words = torch.empty(-(-count // 4), dtype=torch.int64, device=images.device)
    bits = words.random_(-(2**63), None, generator=generator).view(torch.int16)[:count]
    # The bits are integers b in -2^15 … 2^15 - 1; a pixel is 1 where b + 2^15 < 2^16 v / 255. In
    # place, a comparison gives floats.
    scaled = images.float().mul_(2.0**16 / 255)
    return scaled.sub_(bits.float().view(images.shape)).gt_(2.0**15)


def to_unit(images: Tensor) -> Tensor:
    """uint8 images to float32 in [0, 1]."""
    return images.float() / 255
