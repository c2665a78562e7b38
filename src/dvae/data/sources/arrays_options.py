"""Options of the source in `arrays.py`, and what the first bytes of its files say."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic import model_validator

from dvae.data.options import Binarization, ImageDataOptions, ImageSize
from dvae.errors import UserError
from dvae.options import FullPath, Share

if TYPE_CHECKING:
    from dvae.data.sources.base import Source

__all__ = ["ArraysOptions", "Header", "read_header"]

_CHANNELS = (1, 3)


class Header(NamedTuple):
    """What a file says of its array.

    Attributes:
        total: M.
        image_shape: (C, H, W).
        channels_last: Whether the array is (M, H, W, C).
        member: Name of the array in an .npz file; empty for an .npy file.
    """

    total: int
    image_shape: tuple[int, int, int]
    channels_last: bool
    member: str


def read_header(path: Path, key: str) -> Header:
    """Reads the shape of an array of images, without its pixels.

    The channels are the last of four axes if its length is 1 or 3, otherwise the second.

    Args:
        path: An .npy file, or an .npz file with one array or an array named `images`.
        key: Name of the option that names the file, for error messages.

    Raises:
        UserError: If the file is missing, is another one, or holds no images.
    """
    if not path.is_file():
        found = "a folder" if path.is_dir() else "nothing"
        raise UserError(f"{key}: expected an .npy or .npz file, found {found} at {path}")
    try:
        member = _member(path, key)
        with path.open("rb") as file:
            if not member:
                shape, kind = _parse(file)
            else:
                with zipfile.ZipFile(file) as archive, archive.open(f"{member}.npy") as part:
                    shape, kind = _parse(part)
    except (ValueError, zipfile.BadZipFile, EOFError, KeyError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"{key}: expected an .npy or .npz file, found another at {path} ({error})"
        ) from error
    last = len(shape) == 4 and shape[3] in _CHANNELS
    first = len(shape) == 4 and shape[1] in _CHANNELS and not last
    if kind != "uint8" or 0 in shape or not (last or first or len(shape) == 3):
        raise UserError(
            f"{key}: expected uint8 images (M, H, W), (M, H, W, C) or (M, C, H, W), where C is 1 "
            f"or 3, found {kind} {shape} in {path}"
        )
    if len(shape) == 3:
        return Header(shape[0], (1, shape[1], shape[2]), False, member)
    total, *others = shape
    channels, height, width = others if first else (others[2], *others[:2])
    return Header(total, (channels, height, width), last, member)


def _member(path: Path, key: str) -> str:
    """Name of the array in an .npz file; empty for other files."""
    if not zipfile.is_zipfile(path):
        return ""
    with zipfile.ZipFile(path) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist()]
    if len(names) == 1 or "images" in names:
        return "images" if "images" in names else names[0]
    raise UserError(
        f"{key}: expected one array, or one that is named images, found "
        f"{', '.join(names) or 'none'} in {path}"
    )


def _parse(file: IO[bytes]) -> tuple[tuple[int, ...], str]:
    """The shape and dtype that an .npy file begins with."""
    from numpy.lib import format as npy

    version = npy.read_magic(file)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, str(dtype)


class ArraysOptions(ImageDataOptions):
    """See `dvae.data.sources.arrays.Arrays`.

    Attributes:
        train: File of the training images.
        test: File of the test images.
        val: File of the validation images, if there is one.
        size: See `ImageDataOptions`; that of the training images by default.
        channels: C; that of the training images by default.
    """

    name: Literal["arrays"] = "arrays"
    train: FullPath
    test: FullPath
    val: FullPath | None = None
    size: ImageSize | None = None  # type: ignore[assignment]
    channels: Literal[1, 3] | None = None  # type: ignore[assignment,misc]
    binarization: Binarization = "none"
    validation: Share = 0.1

    @model_validator(mode="before")
    @classmethod
    def _read_shape(cls, values: Any) -> Any:
        """Fills in the shape, so that a checkpoint holds it."""
        if not isinstance(values, dict) or not isinstance(values.get("train"), str):
            return values
        given = {key: value for key, value in values.items() if value is not None}
        if {"size", "channels"} <= given.keys():
            return values
        channels, *size = read_header(Path(values["train"]).expanduser(), "data.train").image_shape
        return {"channels": channels, "size": size} | given

    def build_source(self, root: Path) -> Source:
        """Builds the source; see `ImageDataOptions.build_source`."""
        from dvae.data.sources.arrays import Arrays

        paths = {"train": self.train, "test": self.test, "val": self.val}
        given = {split: Path(path) for split, path in paths.items() if path is not None}
        return Arrays(self.name, root, self.image_shape, given)
