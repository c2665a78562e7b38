"""Pictures as tensors (3 or 1, H, W) in [0, 1], and as files."""

from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor
from torchvision import utils
from torchvision.transforms.functional import to_pil_image

from dvae.files import write_file

__all__ = ["picture_grid", "save_film", "save_image", "usage_heatmap"]

_PADDING = 2


def picture_grid(images: Tensor, columns: int) -> Tensor:
    """Arranges images (M, 1 or 3, H, W) in a grid, row by row: (3, H', W') in [0, 1]."""
    return utils.make_grid(images.clamp(0, 1), nrow=columns, padding=_PADDING, pad_value=0.5)


def usage_heatmap(usage: Tensor) -> Tensor:
    """Draws code usage as a heatmap, with one row per latent and one column per category.

    Args:
        usage: Share of images in each category, (N, K).

    Returns:
        (3, H, W) in [0, 1]. The colour scale ends at 4 / K, four times a uniform share.
    """
    num_latents, num_categories = usage.shape
    size = (1.8 + min(0.25 * num_categories, 8), 0.9 + min(0.22 * num_latents, 12))
    figure = Figure(figsize=size, dpi=80, layout="constrained")
    axis = figure.add_subplot()
    picture = axis.imshow(
        usage.cpu().numpy(), vmin=0, vmax=min(1.0, 4 / num_categories), aspect="auto"
    )
    axis.set(xlabel="category", ylabel="latent")
    for labels in (axis.xaxis, axis.yaxis):
        labels.set_major_locator(MaxNLocator(integer=True))
    figure.colorbar(picture, ax=axis, label="share of images", aspect=30)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = torch.from_numpy(np.asarray(canvas.buffer_rgba())[..., :3].copy())
    return pixels.permute(2, 0, 1).float() / 255


def save_image(image: Tensor, path: Path) -> None:
    """Writes a picture as PNG, atomically."""
    with write_file(path, "wb") as file:
        utils.save_image(image, file, format="png")


def save_film(frames: Tensor, path: Path, seconds: float) -> None:
    """Writes frames (T, 3 or 1, H, W) in [0, 1] as GIF, atomically.

    Args:
        frames: The frames.
        path: The file.
        seconds: Duration of a frame, in steps of 0.01 s.
    """
    pictures = [to_pil_image(frame) for frame in frames]
    with write_file(path, "wb") as file:
        pictures[0].save(
            file,
            format="gif",
            save_all=True,
            append_images=pictures[1:],
            duration=round(1000 * seconds),
            loop=0,
        )
