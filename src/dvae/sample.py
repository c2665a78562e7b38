"""Draws pictures from a checkpoint: a PNG and the codes behind it."""

from pathlib import Path

import numpy as np
from rich.console import Console
from torch import Generator, Tensor

from dvae.build import build_data
from dvae.checkpoint import load_module
from dvae.data.binarize import to_unit
from dvae.devices import resolve_device
from dvae.errors import UserError
from dvae.evaluate import data_of
from dvae.files import write_file
from dvae.models import VAE
from dvae.randomness import keyed_generator
from dvae.schemas import ModelConfig, SampleConfig
from dvae.visualize import (
    interpolation_codes,
    posterior_codes,
    reconstructions,
    render,
    samples,
    save_image,
    traversal_codes,
)

__all__ = ["sample"]

_NUM_IMAGES = {"prior": 64, "reconstructions": 64, "traversal": 1, "interpolation": 8}


def sample(config: SampleConfig) -> Path:
    """Draws one kind of picture and writes `<what>.png` and `<what>.npz`.

    Args:
        config: The configuration.

    Returns:
        Where the picture lies.

    Raises:
        UserError: If an input is wrong.
    """
    checkpoint = Path(config.checkpoint)
    module, trained = load_module(checkpoint)
    device = resolve_device(config.device)
    vae = module.vae.to(device)
    if config.relaxed_temperature is not None:
        vae.layer.set_temperature(config.relaxed_temperature)
    generator = keyed_generator(config.seed, device=device)
    grid, codes = _draw(config, trained, vae, generator)
    folder = Path(config.output_dir or checkpoint.parent.parent / "samples")
    folder.mkdir(parents=True, exist_ok=True)
    picture = folder / f"{config.what}.png"
    save_image(grid, picture)
    with write_file(picture.with_suffix(".npz"), "wb") as file:
        np.savez(file, codes=codes.cpu().numpy())
    Console().print(
        f"written to {picture} and {picture.with_suffix('.npz').name}",
        soft_wrap=True,
        highlight=False,
    )
    return picture


def _draw(
    config: SampleConfig, trained: ModelConfig, vae: VAE, generator: Generator
) -> tuple[Tensor, Tensor]:
    """The picture and its codes, (..., N)."""
    count = config.num_images or _NUM_IMAGES[config.what]
    if config.what == "prior":
        return samples(vae, count, generator)
    needed = 2 * count if config.what == "interpolation" else count
    images = build_data(data_of(config, trained), config.data_dir, trained.seed).images(
        config.split
    )
    if needed > len(images):
        raise UserError(
            f"num_images: expected at most the {len(images)} images of the split {config.split}, "
            f"found {count}" + (" pairs" if needed > count else "")
        )
    inputs = to_unit(images[:needed].to(vae.pixel_mean.device))
    if config.what == "reconstructions":
        return reconstructions(vae, inputs, generator)
    codes = posterior_codes(vae, inputs, generator)
    if config.what == "traversal":
        steps = traversal_codes(codes, vae.num_categories)
        return render(vae, steps, columns=vae.num_categories), steps
    path = interpolation_codes(codes[::2], codes[1::2], config.num_steps, generator)
    return render(vae, path, columns=config.num_steps), path
