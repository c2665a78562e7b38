"""Models → pictures: image tensors (3 or 1, H, W) in [0, 1], and the codes behind them."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Generator, Tensor
from torchvision import utils
from torchvision.transforms.functional import to_pil_image

from dvae.distributions import concrete_sample, gumbel_noise, one_hot
from dvae.errors import UserError
from dvae.files import write_file
from dvae.models import VAE
from dvae.models.bounds import LatentModel
from dvae.tasks.semi_supervised.model import ClassStyleVAE
from dvae.tasks.structured_prediction.model import StochasticNetwork, halves

__all__ = [
    "classes",
    "completions",
    "interpolation_codes",
    "posterior_codes",
    "reconstructions",
    "render",
    "samples",
    "save_film",
    "save_image",
    "take",
    "traversal_codes",
    "usage_heatmap",
]

_PADDING = 2
_NUM_COMPLETIONS = 4


def _grid(images: Tensor, columns: int) -> Tensor:
    return utils.make_grid(images.clamp(0, 1), nrow=columns, padding=_PADDING, pad_value=0.5)


@torch.no_grad()
def posterior_codes(vae: LatentModel, images: Tensor, generator: Generator | None = None) -> Tensor:
    """Draws a code from q(z|x) for each image: (B, 1, 28, 28) → (B, N)."""
    logits = vae.encode(images)
    noise = gumbel_noise(logits.shape, device=logits.device, generator=generator)
    return (logits + noise).argmax(-1)


@torch.no_grad()
def reconstructions(
    vae: VAE, images: Tensor, generator: Generator | None = None
) -> tuple[Tensor, Tensor]:
    """A grid with rows of inputs, their one-hot and their relaxed reconstructions in turn.

    Both reconstructions share their noise; they differ by the relaxation alone.

    Args:
        vae: The model.
        images: (B, 1, 28, 28).
        generator: Source of the noise.

    Returns:
        The grid, and the codes of the one-hot reconstructions, (B, N).
    """
    logits = vae.encode(images)
    noise = gumbel_noise(logits.shape, device=logits.device, generator=generator)
    codes = (logits + noise).argmax(-1)
    hard = one_hot(codes, vae.num_categories, logits.dtype)
    relaxed = concrete_sample(logits, vae.layer.temperature, noise).exp()
    rows = []
    columns = min(16, len(images))
    for part in torch.arange(len(images), device=images.device).split(columns):
        # A short last row is filled up, so that the rows keep their order.
        blank = images.new_ones(columns - len(part), *images.shape[1:])
        for drawn in (
            images[part],
            vae.decode(hard[part]).sigmoid(),
            vae.decode(relaxed[part]).sigmoid(),
        ):
            rows += [drawn.float(), blank]
    return _grid(torch.cat(rows), columns), codes


@torch.no_grad()
def render(vae: LatentModel, codes: Tensor, columns: int) -> Tensor:
    """A grid of the mean images of codes (..., N), row by row."""
    images = vae.decode_codes(codes.flatten(0, -2)).sigmoid()
    return _grid(images.float(), columns)


@torch.no_grad()
def samples(vae: VAE, num_images: int, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
    """A grid of mean images of codes drawn from the prior, and the codes, (num_images, N)."""
    codes = vae.prior.sample(num_images, generator)
    return render(vae, codes, columns=max(1, round(num_images**0.5))), codes


def take(data: Any, split: str, count: int, images_each: int = 1) -> Tensor:
    """The first images of a split, uint8.

    Args:
        data: A `dvae.data.module.ImageDataModule`.
        split: Which.
        count: How many pictures are asked for.
        images_each: Images that a picture needs.

    Raises:
        UserError: If there are not so many.
    """
    images, needed = data.images(split), count * images_each
    if needed > len(images):
        raise UserError(
            f"num_images: expected at most the {len(images)} images of the split {split}, "
            f"found {count}" + (" pairs" if images_each > 1 else "")
        )
    return images[:needed]


@torch.no_grad()
def completions(
    network: StochasticNetwork, images: Tensor, generator: Generator | None = None
) -> tuple[Tensor, Tensor]:
    """A grid of upper halves, four drawn completions of each, and the whole images.

    Args:
        network: Predicts lower halves.
        images: Whole images, (B, 1, H, W), in columns.
        generator: Source of the draws.

    Returns:
        The grid, and the codes of all layers, (4, B, L·N).
    """
    upper, lower = halves(images)
    rows, codes = [torch.cat([upper, torch.full_like(lower, 0.5)], -2)], []
    for _ in range(_NUM_COMPLETIONS):
        drawn: list[Tensor] = []

        def draw(number: int, logits: Tensor, drawn: list[Tensor] = drawn) -> Tensor:
            noise = gumbel_noise(logits.shape, device=logits.device, generator=generator)
            drawn.append((logits + noise).argmax(-1))
            return one_hot(drawn[-1], logits.shape[-1], logits.dtype)

        rows.append(torch.cat([upper, network.propagate(upper, draw).sigmoid().float()], -2))
        codes.append(torch.cat(drawn, -1))
    return _grid(torch.cat([*rows, images]), len(images)), torch.stack(codes)


@torch.no_grad()
def classes(
    model: ClassStyleVAE, styles: int, generator: Generator | None = None
) -> tuple[Tensor, Tensor]:
    """A grid of mean images: a row a class, a column a style drawn from its prior.

    Args:
        model: Draws images of a class and a style.
        styles: How many columns.
        generator: Source of the styles.

    Returns:
        The grid, and the classes in it, (K, styles, 1).
    """
    count, device = model.num_classes, model.output_bias.device
    dtype = model.output_bias.dtype
    z = torch.randn(styles, model.style, generator=generator, device=device, dtype=dtype)
    codes = torch.arange(count, device=device).view(count, 1, 1).expand(-1, styles, -1)
    y = one_hot(codes[..., 0], count, dtype)
    pixel_logits = model.decode(y, z.expand(count, -1, -1))
    return _grid(pixel_logits.flatten(0, 1).sigmoid().float(), styles), codes


def traversal_codes(codes: Tensor, num_categories: int) -> Tensor:
    """Steps each latent through its categories, the others held.

    Args:
        codes: (B, N).
        num_categories: K.

    Returns:
        (B, N, K, N): for image b, latent n and category k the code with z_n = k.
    """
    num_latents = codes.shape[-1]
    steps = codes[:, None, None].repeat(1, num_latents, num_categories, 1)
    categories = torch.arange(num_categories, device=codes.device)
    for n in range(num_latents):
        steps[:, n, :, n] = categories
    return steps


def interpolation_codes(
    start: Tensor, end: Tensor, num_steps: int, generator: Generator | None = None
) -> Tensor:
    """A path between codes on which ever more latents take the value of the end.

    Args:
        start: (B, N).
        end: (B, N).
        num_steps: Codes on the path, both ends included; at least 2.
        generator: Source of the order in which latents change.

    Returns:
        (B, num_steps, N).
    """
    order = torch.rand(start.shape, generator=generator, device=start.device).argsort(-1)
    position = order.argsort(-1).unsqueeze(1)
    share = torch.linspace(0, 1, num_steps, device=start.device)
    changed = position < (share * start.shape[-1]).round().unsqueeze(-1)
    return torch.where(changed, end.unsqueeze(1), start.unsqueeze(1))


def usage_heatmap(usage: Tensor) -> Tensor:
    """Code usage as a picture with axes: a row a latent, a column a category.

    Args:
        usage: Share of images in each category, (N, K).

    Returns:
        (3, H, W) in [0, 1]. The colours end at four times the share of a uniform use.
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
    """Writes a picture as PNG, whole or not at all."""
    with write_file(path, "wb") as file:
        utils.save_image(image, file, format="png")


def save_film(frames: Tensor, path: Path, seconds: float) -> None:
    """Writes frames (T, 3 or 1, H, W) in [0, 1] as GIF, whole or not at all.

    Args:
        frames: The frames.
        path: The file.
        seconds: How long a frame stays, in hundredths at the finest.
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
