"""Random deformation of images."""

import torch
from torch import Tensor, nn

__all__ = ["deform"]


def deform(images: Tensor, strength: float) -> Tensor:
    """Rotates, stretches, shears and shifts each image at random.

    The coordinates u in [−1, 1]² at which an image is read become (I + s A) u + s b, with A and b
    standard normal. For s = 0.1 and 28 pixels, the standard deviations are 1.4 pixels for shifts
    and 4° for rotations.

    Args:
        images: (B, C, H, W); pixels outside of an image are read as 0.
        strength: s, at least 0.

    Returns:
        Images of the same shape, by bilinear interpolation.
    """
    identity = torch.eye(2, 3, device=images.device, dtype=images.dtype)
    maps = identity + strength * torch.randn_like(identity.expand(len(images), -1, -1))
    grid = nn.functional.affine_grid(maps, list(images.shape), align_corners=False)
    return nn.functional.grid_sample(images, grid, align_corners=False)
