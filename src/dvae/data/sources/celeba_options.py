"""Options of the source in `celeba.py`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dvae.data.sources.folder_options import ImageFileOptions

if TYPE_CHECKING:
    from dvae.data.sources.base import Source

__all__ = ["CelebAOptions"]


class CelebAOptions(ImageFileOptions):
    """See `dvae.data.sources.celeba.CelebA`.

    Attributes:
        validation: The published validation images; with 0, no model is selected by them.
    """

    name: Literal["celeba"] = "celeba"
    validation: Literal[0, 19867] = 19867
    channels = 3

    def build_source(self, root: Path) -> Source:
        """Builds the source; see `ImageDataOptions.build_source`."""
        from dvae.data.sources.celeba import CelebA

        return CelebA(
            self.name,
            root,
            directory=root / "celeba" / "img_align_celeba",
            validation=0.0,
            testing=0.0,
            **self.decoding(),
        )
