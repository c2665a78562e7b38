"""Images in a folder of files."""

import os
import stat
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from hashlib import blake2b
from pathlib import Path

from torch import Tensor

from dvae.data.cache import IMAGES, map_images, prepared_folder
from dvae.data.decode import Decoder
from dvae.data.preparation import Broken, ImageFile, check_broken, prepare_images, read_broken
from dvae.data.sources.base import Source
from dvae.errors import UserError

__all__ = ["Folder", "find_files", "place"]

_ENDINGS = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
_VALIDATION = ("val", "valid", "validation")
_ORDER = ("train", "val", "test")


class Folder(Source):
    """Files of images below a folder, prepared once and then mapped into memory.

    The folders `train`, `val` (or `valid`, `validation`) and `test` are the splits. What is missing
    is held out from the training images by a hash of the path, so that no file changes its split
    when others are added.

    Args:
        name: See `Source`.
        root: See `Source`.
        directory: The folder of the images.
        decoder: Turns a file into an image.
        max_broken: The largest share of files that may be unreadable; they are left out.
        validation: Share of the training files that is held out where there is no `val`.
        testing: Share of the training files that is held out where there is no `test`.
    """

    files = "of images"
    mapped = True
    key = "data.root"
    """Name of the option that names the files, for error messages."""

    def __init__(
        self,
        name: str,
        root: Path,
        *,
        directory: Path,
        decoder: Decoder,
        max_broken: float,
        validation: float,
        testing: float,
    ) -> None:
        super().__init__(name, root, decoder.image_shape)
        self.directory = directory
        self.decoder = decoder
        self.max_broken = max_broken
        self.validation = validation
        self.testing = testing

    def prepare(self) -> None:
        """Decodes the files, unless it is done already; see `Source.prepare`."""
        _ = self._splits

    def read(self, train: bool) -> Tensor:
        """Maps the images into memory; see `Source.read`."""
        return self._splits["train" if train else "test"]

    def read_validation(self) -> Tensor | None:
        """Maps the validation images into memory; see `Source.read_validation`."""
        images = self._splits["val"]
        return images if len(images) else None

    def names(self, split: str) -> list[str]:
        """Paths relative to the folder; see `Source.names`."""
        parts = self._parts()
        files = [file for part in parts.values() for file in part]
        broken = read_broken(self._folder(files))
        names = [file.name for file in files if file.name not in broken]
        return names[self._ranges(parts, broken)[split]]

    def find(self) -> Mapping[str, list[ImageFile]]:
        """The files for each split ("train", "val" or "test") that has a folder, and for "train".

        Raises:
            UserError: If there is no such folder, or it is not clear which one to take.
        """
        if not self.directory.is_dir():
            found = "a file" if self.directory.exists() else "nothing"
            raise UserError(f"{self.key}: expected a folder, found {found} at {self.directory}")
        folders = {path.name for path in self.directory.iterdir() if path.is_dir()}
        validation = [name for name in _VALIDATION if name in folders]
        if len(validation) > 1:
            raise UserError(
                f"{self.key}: expected one folder of validation images, found "
                f"{' and '.join(validation)} in {self.directory}"
            )
        splits = {"train": "train", "test": "test"} | dict.fromkeys(validation, "val")
        files: dict[str, list[ImageFile]] = defaultdict(list)
        for file in find_files(self.directory):
            split = splits.get(file.name.partition("/")[0])
            if split or "train" not in folders:
                files[split or "train"].append(file)
        return files

    @cached_property
    def _splits(self) -> dict[str, Tensor]:
        parts = self._parts()
        files = [file for part in parts.values() for file in part]
        folder, shape = self._folder(files), self.image_shape
        broken = read_broken(folder)
        check_broken(broken, len(files), self.max_broken, self.key)
        images = map_images(folder / IMAGES, (len(files) - len(broken), *shape))
        return {split: images[part] for split, part in self._ranges(parts, broken).items()}

    def _parts(self) -> dict[str, list[ImageFile]]:
        """What `find` finds, in the order of the images."""
        found = self.find()
        # Sorted by place, any share of the training files is one range.
        return {
            split: sorted(found[split], key=lambda file: (place(file.name), file.name))
            for split in _ORDER
            if split in found
        }

    def _folder(self, files: Sequence[ImageFile]) -> Path:
        """The folder of the prepared images."""
        if not files:
            raise UserError(
                f"{self.key}: expected files with the endings {' '.join(sorted(_ENDINGS))} below "
                f"{self.directory}, found none"
            )
        listing = blake2b(os.fsencode(self.directory.resolve()))
        for name, size, modified in files:
            # As bytes, since some file systems have names that are not text.
            listing.update(os.fsencode(name) + f"\0{size}\0{modified}\0".encode())
        key = [listing.hexdigest(), self.image_shape, self.decoder.fit, self.decoder.background]

        def fill(part: Path) -> None:
            names = [file.name for file in files]
            prepare_images(part, self.directory, names, self.decoder, self.max_broken, self.key)

        return prepared_folder(self.root, self.name, key, (len(files), *self.image_shape), fill)

    def _ranges(self, parts: Mapping[str, Sequence[ImageFile]], broken: Broken) -> dict[str, slice]:
        """The range of each split among the images."""
        names = {
            split: [file.name for file in files if file.name not in broken]
            for split, files in parts.items()
        }
        training = [place(name) for name in names.get("train", ())]
        start = 0 if "test" in names else bisect_left(training, self.testing)
        stop = len(training) if "val" in names else bisect_left(training, 1 - self.validation)
        end = len(training)
        # First the parts of the training files, then the files that have folders of their own.
        bounds = {"test": (0, start), "train": (start, stop), "val": (stop, end)}
        for split in ("val", "test"):
            if split in names:
                bounds[split] = (end, end + len(names[split]))
                end += len(names[split])
        needed = ("train", "val", "test") if self.validation else ("train", "test")
        if any(start == stop for split, (start, stop) in bounds.items() if split in needed):
            sizes = [f"{stop - start} for {split}" for split, (start, stop) in bounds.items()]
            raise UserError(
                f"{self.key}: expected images for each split, found {', '.join(sizes)} in "
                f"{self.directory}; more images, data.validation or data.testing may help"
            )
        return {split: slice(*bound) for split, bound in bounds.items()}


def place(name: str) -> float:
    """A number in [0, 1) that depends on a file's name only, and is uniform over names."""
    return int.from_bytes(blake2b(os.fsencode(name), digest_size=6).digest(), "big") / 2**48


def find_files(
    folder: Path, prefix: str = "", above: frozenset[tuple[int, int]] = frozenset()
) -> Iterator[ImageFile]:
    """The files of images below a folder, hidden ones excepted.

    Links are followed, but not to a folder that contains them.
    """
    status = folder.stat()
    identity = (status.st_dev, status.st_ino)
    if identity in above:
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            name = prefix + entry.name
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                yield from find_files(Path(entry.path), f"{name}/", above | {identity})
            elif os.path.splitext(name)[1].lower() in _ENDINGS:
                try:
                    status = entry.stat()
                except OSError:
                    yield ImageFile(name, -1, 0)
                    continue
                if stat.S_ISREG(status.st_mode):
                    yield ImageFile(name, status.st_size, status.st_mtime_ns)
