"""Encodes the images of a checkpoint's data to integer codes."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from dvae.commands.quiet import quiet
from dvae.data.loader import Batch
from dvae.data.module import ImageDataModule
from dvae.distributions import gumbel_from_uniform
from dvae.errors import UserError
from dvae.files import check_writable, write_file, write_json
from dvae.models.vae import VAE
from dvae.randomness import ImageStreams
from dvae.tasks import find_task
from dvae.tasks.options import EncodeConfig
from dvae.tasks.vae.loading import load_vae
from dvae.training.devices import describe_device, resolve_device
from dvae.training.terminal import has_terminal

__all__ = ["encode"]


def encode(config: EncodeConfig) -> list[Path]:
    """Writes the codes of whole splits, in the order of the files, and what they are.

    For each split: `<split>.npy`, unsigned integers (M, *grid) of 8 or 16 bits; with `logits`,
    `<split>.logits.npy`, float32 (M, *grid, K); and `<split>.json`, with the names of the images'
    files if they have any. `numpy.load` with `mmap_mode="r"` opens the arrays without reading them.
    Each file is written whole or not at all.

    Args:
        config: The configuration.

    Returns:
        The paths of the codes.

    Raises:
        UserError: If an input is wrong.
    """
    quiet()
    checkpoint = Path(config.checkpoint)
    module, trained = load_vae(checkpoint)
    task = find_task(trained.task)
    task.check_options(config)
    if config.relaxed_temperature is not None:
        raise UserError(
            "relaxed_temperature: expected null, as the codes are discrete, found "
            f"{config.relaxed_temperature}"
        )
    folder = Path(config.output_dir or checkpoint.parent.parent / "codes")
    for split in config.splits:
        check_writable(folder / f"{split}.npy")
    console = Console(markup=False)
    console.print(describe_device(config.device), soft_wrap=True, highlight=False)
    vae = module.vae.to(resolve_device(config.device))
    data = task.stored_data(trained, config)
    data.prepare_data()
    paths = []
    for split in dict.fromkeys(config.splits):
        paths.append(_encode(vae, data, split, folder, config))
        shape = (len(data.images(split)), *vae.prior.grid)
        console.print(
            f"{split}: {' × '.join(map(str, shape))} codes of {vae.num_categories} categories, "
            f"written to {paths[-1]}",
            soft_wrap=True,
            highlight=False,
        )
    return paths


@torch.inference_mode()
def _encode(
    vae: VAE, data: ImageDataModule, split: str, folder: Path, config: EncodeConfig
) -> Path:
    loader, grid = data.eval_dataloader(split), vae.prior.grid
    shape, dtype = (len(data.images(split)), *grid), np.min_scalar_type(vae.num_categories - 1)
    path = folder / f"{split}.npy"
    with ExitStack() as stack:
        # Files replace older ones at the end, so that an error leaves those as they were.
        codes_file = stack.enter_context(write_file(path, "wb"))
        _write_header(codes_file, shape, dtype)
        if config.logits:
            logits_path = folder / f"{split}.logits.npy"
            logits_file = stack.enter_context(write_file(logits_path, "wb"))
            _write_header(logits_file, (*shape, vae.num_categories), np.dtype(np.float32))
        hidden = not (config.progress_bar and has_terminal())
        for batch in track(loader, split, len(loader), disable=hidden):
            logits, codes = _draw(vae, batch, config)
            codes_file.write(codes.cpu().numpy().astype(dtype).tobytes())
            if config.logits:
                logits_file.write(logits.float().cpu().numpy().tobytes())
    about = {
        "checkpoint": config.checkpoint,
        "split": split,
        "data": config.data.model_dump(exclude_none=True),
        "codes": config.codes,
        "seed": config.seed,
        "grid": list(grid),
        "num_categories": vae.num_categories,
        "names": data.source.names(split),
    }
    write_json(folder / f"{split}.json", about)
    return path


def _draw(vae: VAE, batch: Batch, config: EncodeConfig) -> tuple[Tensor, Tensor]:
    """Logits (B, N, K), and the most probable codes (B, N) or those that an evaluation draws."""
    device, shape = vae.pixel_mean.device, (vae.num_latents, vae.num_categories)
    features = vae.encode(batch.images.to(device))
    if config.codes == "argmax":
        return vae.draw_codes(features)
    streams = ImageStreams(batch.indices, config.seed)
    noise = gumbel_from_uniform(streams.uniform(1, *shape)[0])
    return vae.draw_codes(features, noise.to(device))


def _write_header(file: IO[bytes], shape: Sequence[int], dtype: np.dtype[Any]) -> None:
    """Starts a .npy file, whose array is then written in parts."""
    header = {
        "descr": np.lib.format.dtype_to_descr(dtype),
        "fortran_order": False,
        "shape": tuple(shape),
    }
    np.lib.format.write_array_header_1_0(file, header)
