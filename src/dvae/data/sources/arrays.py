"""Images in the arrays of NumPy's files."""

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from dvae.data.cache import IMAGES, map_images, prepared_folder, progress, read_only
from dvae.data.sources.arrays_options import Header, read_header
from dvae.data.sources.base import Source, resized
from dvae.errors import UserError

__all__ = ["Arrays"]

_CHUNK = 256


class Arrays(Source):
    """Arrays of images: .npy or .npz files of uint8, (M, H, W), (M, H, W, C) or (M, C, H, W).

    An .npy file that holds the images as they are needed is mapped into memory; other files are
    written out once.

    Args:
        name: See `Source`.
        root: See `Source`.
        image_shape: See `Source`.
        paths: Split ("train", "test" and perhaps "val") → its file.
    """

    files = ".npy or .npz"
    mapped = True

    def __init__(
        self, name: str, root: Path, image_shape: Sequence[int], paths: Mapping[str, Path]
    ) -> None:
        super().__init__(name, root, image_shape)
        self.paths = paths

    def prepare(self) -> None:
        """Writes out what cannot be mapped as it is; see `Source.prepare`."""
        for split in self.paths:
            self._map(split)

    def read(self, train: bool) -> Tensor:
        """Maps the images into memory; see `Source.read`."""
        return self._map("train" if train else "test")

    def read_validation(self) -> Tensor | None:
        """Maps the validation images into memory; see `Source.read_validation`."""
        return self._map("val") if "val" in self.paths else None

    def _map(self, split: str) -> Tensor:
        path, key = self.paths[split], f"data.{split}"
        header = read_header(path, key)
        if header.image_shape[0] != self.image_shape[0]:
            raise UserError(
                f"{key}: expected images with {self.image_shape[0]} channels, found "
                f"{header.image_shape[0]} in {path}"
            )
        shape = (header.total, *self.image_shape)
        if not header.member and header.image_shape == self.image_shape:
            images = _load(path, header, key)
            if images.flags.c_contiguous:
                return read_only(images)
        status = path.stat()
        folder = prepared_folder(
            self.root,
            self.name,
            [str(path), status.st_size, status.st_mtime_ns, *self.image_shape],
            shape,
            lambda part: _write(part / IMAGES, _load(path, header, key), self.image_shape),
        )
        return map_images(folder / IMAGES, shape)


def _load(path: Path, header: Header, key: str) -> np.ndarray[Any, Any]:
    """The images (M, C, H, W), mapped into memory from an .npy file.

    Raises:
        UserError: If the file is incomplete.
    """
    try:
        array = np.load(path, mmap_mode=None if header.member else "r")
        if header.member:
            with array as archive:
                array = archive[header.member]
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{key}: expected a complete file, found {path}: {error}") from error
    if header.channels_last:
        return np.moveaxis(array, -1, 1)
    return array[:, None] if array.ndim == 3 else array


def _write(path: Path, images: np.ndarray[Any, Any], image_shape: Sequence[int]) -> None:
    starts = range(0, len(images), _CHUNK)
    with path.open("wb") as output:
        for start in progress(starts, len(images)):
            part = np.ascontiguousarray(images[start : start + _CHUNK])
            output.write(resized(read_only(part), image_shape).numpy().tobytes())
