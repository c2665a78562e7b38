"""Pictures as tensors (3 or 1, H, W) in [0, 1], and as files."""

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator
from torch import Tensor
from torchvision import utils
from torchvision.transforms.functional import to_pil_image

from dvae.files import write_file

__all__ = ["picture_grid", "save_film", "save_image", "usage_picture"]

_PADDING = 2
_MAX_CELLS = 64
"""Most latents and categories that a heatmap can show."""


def picture_grid(images: Tensor, columns: int) -> Tensor:
    """Arranges images (M, 1 or 3, H, W) in a grid, row by row: (3, H', W') in [0, 1]."""
    return utils.make_grid(images.clamp(0, 1), nrow=columns, padding=_PADDING, pad_value=0.5)


def usage_picture(usage: Tensor, categories: Tensor) -> Tensor:
    """Draws code usage: a heatmap, or a sorted curve with more than 64 latents or categories.

    Args:
        usage: Share of images in each category, (N, K).
        categories: See `dvae.models.usage.CodeUsage.categories`, (L, K) or (N, K).

    Returns:
        (3, H, W) in [0, 1].
    """
    return _heatmap(usage) if max(usage.shape) <= _MAX_CELLS else _curve(categories)


def _heatmap(usage: Tensor) -> Tensor:
    """One row per latent, one column per category; colours end at four times a uniform share."""
    canvas, picture = _heatmap_figure(*usage.shape)
    picture.set_data(usage.cpu().numpy())
    return _pixels(canvas)


@lru_cache(maxsize=8)
def _heatmap_figure(num_latents: int, num_categories: int) -> tuple[FigureCanvasAgg, AxesImage]:
    """The figure without a usage, kept: to lay it out takes longer than to draw it."""
    size = (1.8 + min(0.25 * num_categories, 8), 0.9 + min(0.22 * num_latents, 12))
    figure = Figure(figsize=size, dpi=80, layout="constrained")
    canvas, axis = FigureCanvasAgg(figure), figure.add_subplot()
    empty = np.zeros((num_latents, num_categories))
    picture = axis.imshow(empty, vmin=0, vmax=min(1.0, 4 / num_categories), aspect="auto")
    axis.set(xlabel="category", ylabel="latent")
    for labels in (axis.xaxis, axis.yaxis):
        labels.set_major_locator(MaxNLocator(integer=True))
    figure.colorbar(picture, ax=axis, label="share of images", aspect=30)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return canvas, picture


def _curve(shares: Tensor) -> Tensor:
    """Shares of categories from the most to the least used one, as a mean over rows."""
    num_categories = shares.shape[-1]
    curve = shares.sort(-1, descending=True).values.mean(0).cpu().numpy()
    used, perplexity = (shares > 0).sum(-1), torch.special.entr(shares).sum(-1).exp()
    figure = Figure(figsize=(6, 3.5), dpi=80, layout="constrained")
    axis = figure.add_subplot()
    axis.plot(range(1, num_categories + 1), curve)
    axis.axhline(1 / num_categories, color="grey", linestyle="--", linewidth=1)
    # From a tenth of a dead category's share on; linear below, so that zeros are shown.
    axis.set_yscale("symlog", linthresh=0.01 / num_categories)
    axis.set(
        xlabel="category, sorted",
        ylabel="share",
        ylim=(0, None),
        title=f"{used.double().mean():,.0f} of {num_categories:,} categories in use, "
        f"perplexity {perplexity.mean():,.0f}",
    )
    return _pixels(FigureCanvasAgg(figure))


def _pixels(canvas: FigureCanvasAgg) -> Tensor:
    """Renders a figure, (3, H, W) in [0, 1]."""
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
