"""Images slightly deformed."""

import torch
from torch import Tensor, nn

__all__ = ["deform"]


def deform(images: Tensor, strength: float) -> Tensor:
    """Turns, stretches, slants and shifts each image at random.

    The coordinates u in [−1, 1]² at which an image is read become (I + s A) u + s b, with A and b
    standard normal: with s = 0.1, shifts of 1.4 pixels of 28 and turns of about 6°.

    Args:
        images: (B, C, H, W); what is read outside of an image is 0.
        strength: s, at least 0.

    Returns:
        Images of that shape, by bilinear interpolation.
    """
    identity = torch.eye(2, 3, device=images.device, dtype=images.dtype)
    maps = identity + strength * torch.randn_like(identity.expand(len(images), -1, -1))
    grid = nn.functional.affine_grid(maps, list(images.shape), align_corners=False)
    return nn.functional.grid_sample(images, grid, align_corners=False)
