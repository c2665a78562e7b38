"""Pictures of classes in several styles."""

import torch
from torch import Generator, Tensor

from dvae.distributions import one_hot
from dvae.tasks.semi_supervised.model import ClassStyleVAE
from dvae.training.pictures import picture_grid

__all__ = ["classes"]


@torch.no_grad()
def classes(
    model: ClassStyleVAE, styles: int, generator: Generator | None = None
) -> tuple[Tensor, Tensor]:
    """A grid of mean images, with one row per class and one column per style from the prior.

    Args:
        model: Decodes classes and styles.
        styles: Number of columns.
        generator: Source of the styles.

    Returns:
        The grid, and the classes in it, (K, styles, 1).
    """
    count, device = model.num_classes, model.output_bias.device
    dtype = model.output_bias.dtype
    z = torch.randn(styles, model.style, generator=generator, device=device, dtype=dtype)
    codes = torch.arange(count, device=device).view(count, 1, 1).expand(-1, styles, -1)
    y = one_hot(codes[..., 0], count, dtype)
    images = model.likelihood.mean(model.decode(y, z.expand(count, -1, -1)))
    return picture_grid(images.flatten(0, 1).float(), styles), codes
