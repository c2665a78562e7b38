"""Pictures that a VAE draws, and their codes."""

from typing import Any

import torch
from torch import Generator, Tensor

from dvae.distributions import gumbel_noise, one_hot
from dvae.errors import UserError
from dvae.models.vae import VAE
from dvae.priors.base import Prior
from dvae.training.pictures import picture_grid

__all__ = [
    "class_context",
    "columns",
    "completions",
    "decoded",
    "interpolation_codes",
    "likely_interpolation",
    "posterior_codes",
    "reconstructions",
    "render",
    "samples",
    "traversal_codes",
]

_COLUMNS = 16
_DECODES = 1024
"""Most codes that are decoded at once."""
_COMPLETIONS = 6
"""Completions of each image."""
_PATHS = 32
"""Paths of which an interpolation takes the most probable one."""


@torch.no_grad()
def posterior_codes(vae: VAE, images: Tensor, generator: Generator | None = None) -> Tensor:
    """Draws a code from q(z|x) for each image: (B, C, H, W) → (B, N)."""
    return vae.draw_codes(vae.encode(images), _noise(vae, len(images), generator))[1]


def _noise(vae: VAE, count: int, generator: Generator | None) -> Tensor:
    """Gumbel noise for the codes of so many images, (count, N, K)."""
    shape = (count, vae.num_latents, vae.num_categories)
    return gumbel_noise(shape, device=vae.pixel_mean.device, generator=generator)


@torch.no_grad()
def reconstructions(
    vae: VAE, images: Tensor, generator: Generator | None = None
) -> tuple[Tensor, Tensor]:
    """A grid with alternating rows: inputs, one-hot reconstructions, relaxed reconstructions.

    Both reconstructions use the same noise, so that they differ only by the relaxation.

    Args:
        vae: The model.
        images: (B, C, H, W).
        generator: Source of the noise.

    Returns:
        The grid, and the codes of the one-hot reconstructions, (B, N).
    """
    features, noise = vae.encode(images), _noise(vae, len(images), generator)
    codes = vae.draw_codes(features, noise)[1]
    relaxed = vae.draw_relaxed(features, noise)[1]
    mean, rows, width = vae.likelihood.mean, [], min(_COLUMNS, len(images))
    for part in torch.arange(len(images), device=images.device).split(width):
        # Pad a short last row, so that the grid keeps its rows.
        blank = images.new_ones(width - len(part), *images.shape[1:])
        for drawn in (
            images[part],
            mean(vae.decode_codes(codes[part])),
            mean(vae.decode(relaxed[part])),
        ):
            rows += [drawn.float(), blank]
    return picture_grid(torch.cat(rows), width), codes


@torch.no_grad()
def render(vae: VAE, codes: Tensor, columns: int) -> Tensor:
    """A grid of the mean images of codes (..., N), row by row."""
    return picture_grid(decoded(vae, codes), columns)


@torch.no_grad()
def decoded(vae: VAE, codes: Tensor) -> Tensor:
    """Mean images of codes (..., N), (M, C, H, W), decoded in parts."""
    parts = codes.flatten(0, -2).split(_DECODES)
    return torch.cat([vae.likelihood.mean(vae.decode_codes(part)).float() for part in parts])


@torch.no_grad()
def samples(
    vae: VAE, num_images: int, generator: Generator | None = None, **sampling: Any
) -> tuple[Tensor, Tensor]:
    """A grid of mean images of codes drawn from the prior, and the codes, (num_images, N).

    Args:
        vae: The model.
        num_images: Number of codes.
        generator: Source of randomness.
        **sampling: Options of `Prior.sample`.
    """
    codes = vae.prior.sample(num_images, generator=generator, **sampling)
    return render(vae, codes, columns(num_images)), codes


@torch.no_grad()
def completions(
    vae: VAE,
    images: Tensor,
    keep: int | float,
    generator: Generator | None = None,
    **sampling: Any,
) -> tuple[Tensor, Tensor]:
    """A grid with a row for each image: the image, its reconstruction, completions by the prior.

    A completion keeps the first latents of the reconstruction's code, and the prior draws the
    others.

    Args:
        vae: The model.
        images: (B, C, H, W).
        keep: How many latents are kept: a count, or a fraction, rounded to whole rows of a grid.
        generator: Source of randomness.
        **sampling: Options of `Prior.sample`.

    Returns:
        The grid, and the codes of the completions, (B, 6, N).
    """
    own = posterior_codes(vae, images, generator)
    rows, row = vae.prior.grid[0], vae.num_latents // vae.prior.grid[0]
    kept = min(keep, vae.num_latents) if isinstance(keep, int) else round(keep * rows) * row
    first = own[:, :kept].repeat_interleave(_COMPLETIONS, 0)
    drawn = vae.prior.sample(len(first), generator=generator, first=first, **sampling)
    codes = drawn.unflatten(0, (len(images), _COMPLETIONS))
    shown = decoded(vae, torch.cat([own.unsqueeze(1), codes], 1)).unflatten(0, (len(images), -1))
    return picture_grid(torch.cat([images.unsqueeze(1), shown], 1).flatten(0, 1), 8), codes


def class_context(prior: Prior, label: int | None) -> Tensor | None:
    """The context of a class for a prior, (1, C); None for none.

    Raises:
        UserError: If the prior has no such class.
    """
    if label is None:
        return None
    classes = prior.context_size
    if not 0 <= label < classes:
        expected = f"0 to {classes - 1}" if classes else "null with a prior without classes"
        raise UserError(f"label: expected {expected}, found {label}")
    return one_hot(torch.tensor([label]), classes).to(next(prior.parameters()))


def columns(num_images: int) -> int:
    """Columns of a grid that is about square."""
    return max(1, round(num_images**0.5))


@torch.no_grad()
def traversal_codes(vae: VAE, codes: Tensor, generator: Generator | None = None) -> Tensor:
    """Steps each latent through its categories, and keeps the others fixed.

    In a hierarchy, the levels below the latent are drawn anew from the prior, with the same noise
    for all steps of an image.

    Args:
        vae: The model.
        codes: (B, N).
        generator: Source of that noise.

    Returns:
        (B, N, K, N): for image b, latent n and category k, the code of b with z_n = k.
    """
    num_latents, num_categories, levels = vae.num_latents, vae.num_categories, vae.prior.levels
    steps = codes[:, None, None].repeat(1, num_latents, num_categories, 1)
    categories = torch.arange(num_categories, device=codes.device)
    for n in range(num_latents):
        steps[:, n, :, n] = categories
    if len(levels) > 1:
        noise = _noise(vae, len(codes), generator)[:, None, None]
        for level, place in enumerate(levels):
            steps[:, place] = vae.prior.complete(steps[:, place], level, noise)
    return steps


@torch.no_grad()
def likely_interpolation(
    prior: Prior, start: Tensor, end: Tensor, num_steps: int, generator: Generator | None = None
) -> Tensor:
    """The path, of several drawn ones, that the prior finds most probable on average.

    Args:
        prior: p(z). If its latents are independent, all paths are equally probable.
        start: See `interpolation_codes`.
        end: See there.
        num_steps: See there.
        generator: See there.

    Returns:
        (B, num_steps, N).
    """
    draws = _PATHS if prior.depends_on_draw else 1
    paths = torch.stack(
        [interpolation_codes(start, end, num_steps, generator) for _ in range(draws)]
    )
    best = prior.log_prob(paths).mean(-1).argmax(0)
    return paths[best, torch.arange(len(start), device=start.device)]


def interpolation_codes(
    start: Tensor, end: Tensor, num_steps: int, generator: Generator | None = None
) -> Tensor:
    """A path from one code to another, along which more and more latents switch to the end.

    Args:
        start: (B, N).
        end: (B, N).
        num_steps: Codes on the path, both ends included; at least 2.
        generator: Draws the order in which latents switch.

    Returns:
        (B, num_steps, N).
    """
    order = torch.rand(start.shape, generator=generator, device=start.device).argsort(-1)
    position = order.argsort(-1).unsqueeze(1)
    share = torch.linspace(0, 1, num_steps, device=start.device)
    changed = position < (share * start.shape[-1]).round().unsqueeze(-1)
    return torch.where(changed, end.unsqueeze(1), start.unsqueeze(1))
