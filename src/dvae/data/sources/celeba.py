"""CelebA: faces of celebrities."""

from collections.abc import Mapping

from torchvision import datasets

from dvae.data.preparation import ImageFile
from dvae.data.sources.folder import Folder, find_files
from dvae.data.sources.torchvision import download

__all__ = ["CelebA"]

_SPLITS = {"0": "train", "1": "val", "2": "test"}


class CelebA(Folder):
    """Faces, 162,770 for training, 19,867 and 19,962 colour photographs of 218 × 178; Liu 2015."""

    files = "celeba/{img_align_celeba/*.jpg,list_eval_partition.txt,…}"
    key = "data=celeba"

    def find(self) -> Mapping[str, list[ImageFile]]:
        """The files of each split, as published; see `Folder.find`."""
        folder = self.root / "celeba"
        partition = folder / "list_eval_partition.txt"
        if not (partition.is_file() and self.directory.is_dir()):
            download(self, lambda: datasets.CelebA(self.root, download=True))
        lines = partition.read_text(encoding="utf-8").splitlines()
        splits = dict(line.split() for line in lines if len(line.split()) == 2)
        files: dict[str, list[ImageFile]] = {split: [] for split in _SPLITS.values()}
        for file in find_files(self.directory):
            if (number := splits.get(file.name)) in _SPLITS:
                files[_SPLITS[number]].append(file)
        return files
