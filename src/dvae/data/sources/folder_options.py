"""Options of the source in `folder.py`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from dvae.data.options import Binarization, ImageDataOptions, ImageSize
from dvae.errors import UserError
from dvae.options import Fraction, FullPath

if TYPE_CHECKING:
    from dvae.data.sources.base import Source

__all__ = ["FolderOptions", "ImageFileOptions"]


def _check_colour(name: str) -> str:
    from PIL import ImageColor

    try:
        ImageColor.getrgb(name)
    except ValueError as error:
        raise ValueError("a colour, such as white or '#ffffff'") from error
    return name


Colour = Annotated[str, AfterValidator(_check_colour)]


class ImageFileOptions(ImageDataOptions):
    """The options of sources that decode files of images.

    Attributes:
        fit: How images of another shape are fitted; see `dvae.data.decode.Decoder`.
        background: Colour behind transparent pixels, and around images that are padded.
        max_broken: The largest share of files that may be unreadable; they are left out.
    """

    size: ImageSize = 64
    fit: Literal["crop", "pad", "stretch"] = "crop"
    background: Colour = "white"
    max_broken: Fraction = 0.05
    binarization: Binarization = "none"

    def decoding(self) -> dict[str, Any]:
        """What `Folder` takes to decode files."""
        from PIL import ImageColor

        from dvae.data.decode import Decoder

        red, green, blue, *_ = ImageColor.getrgb(self.background)
        decoder = Decoder(self.image_shape, self.fit, (red, green, blue))
        return {"decoder": decoder, "max_broken": self.max_broken}


class FolderOptions(ImageFileOptions):
    """See `dvae.data.sources.folder.Folder`.

    Attributes:
        root: The folder of the images.
        channels: 1 for grey images, 3 for coloured ones.
        validation: Share of the training files that is held out where there is no folder `val`; 0
            trains on all.
        testing: Share of the training files that is held out where there is no folder `test`.
    """

    name: Literal["folder"] = "folder"
    root: FullPath
    channels: Literal[1, 3] = 3  # type: ignore[misc]
    validation: Fraction = 0.1
    testing: Annotated[float, Field(gt=0, lt=1)] = 0.1

    @model_validator(mode="after")
    def _check_shares(self) -> Self:
        if self.validation + self.testing >= 1:
            raise UserError(
                "data.validation, data.testing: expected shares that leave images to train on, "
                f"found {self.validation} and {self.testing}"
            )
        return self

    def build_source(self, root: Path) -> Source:
        """Builds the source; see `ImageDataOptions.build_source`."""
        from dvae.data.sources.folder import Folder

        return Folder(
            self.name,
            root,
            directory=Path(self.root),
            validation=self.validation,
            testing=self.testing,
            **self.decoding(),
        )
