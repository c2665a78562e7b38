"""Draws a picture from a checkpoint: an image or a film, with its codes."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from dvae.files import check_writable, write_file
from dvae.randomness import keyed_generator
from dvae.tasks import find_task
from dvae.tasks.loading import load_module
from dvae.tasks.options import SampleConfig
from dvae.training.devices import resolve_device
from dvae.training.pictures import save_film, save_image
from dvae.training.terminal import status

__all__ = ["sample"]


def sample(config: SampleConfig) -> Path:
    """Draws one kind of picture and writes `<what>.png`, or `<what>.gif`, and `<what>.npz`.

    With `separate`, each image also becomes a file `<what>/00000.png` and so on.

    Args:
        config: The configuration.

    Returns:
        The path of the picture.

    Raises:
        UserError: If an input is wrong.
    """
    checkpoint = Path(config.checkpoint)
    module, trained = load_module(checkpoint)
    task = find_task(trained.task)
    task.check_options(config)
    what = task.check_drawing(config.what)
    folder = Path(config.output_dir or checkpoint.parent.parent / "samples")
    check_writable(folder / f"{what}.npz")
    module.to(resolve_device(config.device))
    if config.relaxed_temperature is not None:
        module.set_temperature(config.relaxed_temperature)
    data = task.stored_data(trained, config)
    generator = keyed_generator("sample", config.seed, device=module.device)
    with status() as show, torch.no_grad():
        show(f"drawing {what} from {checkpoint}")
        drawing = task.draw(module, data, what, config, generator)
    film = drawing.pictures.ndim == 4
    picture = folder / f"{what}.{'gif' if film else 'png'}"
    if film:
        save_film(drawing.pictures, picture, drawing.seconds)
    else:
        save_image(drawing.pictures, picture)
    # With another temperature than 1, codes are not draws from p(z), and the file says so.
    tau = config.sampling_temperature
    extra: dict[str, Any] = {} if tau is None else {"sampling_temperature": tau}
    with write_file(picture.with_suffix(".npz"), "wb") as file:
        np.savez(file, codes=drawing.codes.cpu().numpy(), **extra)
    if drawing.images is not None:
        (folder / what).mkdir(exist_ok=True)
        for number, image in enumerate(drawing.images):
            save_image(image, folder / what / f"{number:05d}.png")
    how = "" if tau is None else f", with sampling_temperature={tau:g}"
    Console(markup=False).print(
        f"written to {picture} and {picture.with_suffix('.npz').name}{how}",
        soft_wrap=True,
        highlight=False,
    )
    return picture
