"""Codes and images of one's own, read from files."""

from collections.abc import Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from dvae.data.decode import Decoder
from dvae.errors import UserError

__all__ = ["read_codes", "read_images"]


def read_codes(path: str | Path, grid: Sequence[int], num_categories: int) -> Tensor:
    """Reads integer codes from a file of `scripts/encode.py` or `scripts/sample.py`.

    Args:
        path: A .npy file, or a .npz file with an entry `codes`; of shape (..., *grid) or (..., N).
        grid: Shape of the grid of codes.
        num_categories: K.

    Returns:
        (M, N), int64.

    Raises:
        UserError: If the file holds anything else.
    """
    try:
        content = np.load(path, mmap_mode="r", allow_pickle=False)
        codes = content["codes"] if isinstance(content, np.lib.npyio.NpzFile) else content
    except (ValueError, EOFError, KeyError, BadZipFile) as error:
        raise UserError(
            f"codes: expected a .npy file, or a .npz file with an entry codes, found {path} "
            f"({type(error).__name__} while reading it)"
        ) from error
    num_latents, shape = int(np.prod(grid)), codes.shape
    fits = shape[-len(grid) :] == tuple(grid) or shape[-1:] == (num_latents,)
    if not np.issubdtype(codes.dtype, np.integer) or not fits or not codes.size:
        raise UserError(
            f"codes: expected integers of shape (…, {', '.join(map(str, grid))}), as in the "
            f"checkpoint, found {codes.dtype} of shape {shape} in {path}"
        )
    low, high = int(codes.min()), int(codes.max())
    if low < 0 or high >= num_categories:
        raise UserError(
            f"codes: expected 0 to {num_categories - 1}, as the checkpoint has {num_categories} "
            f"categories, found {low} to {high} in {path}"
        )
    return torch.from_numpy(codes.reshape(-1, num_latents).astype(np.int64))


def read_images(paths: Sequence[str | Path], decoder: Decoder) -> Tensor:
    """Reads image files as the data of a run are read.

    Args:
        paths: The files.
        decoder: Turns a file into an image.

    Returns:
        uint8, (M, C, H, W).

    Raises:
        UserError: If a file is not an image.
    """
    images = []
    for path in paths:
        try:
            images.append(torch.from_numpy(decoder(Path(path)).copy()))
        except (FileNotFoundError, IsADirectoryError, PermissionError):
            raise
        except Exception as error:
            # Pillow raises errors of almost any kind for broken files.
            raise UserError(f"images: expected image files, found another: {path}") from error
    return torch.stack(images)
