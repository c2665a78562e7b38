"""Reads image files as a person sees them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

__all__ = ["Decoder"]

_FILTER = Image.Resampling.BICUBIC


@dataclass(frozen=True)
class Decoder:
    """Reads a file and brings it to one shape.

    Photographs are turned upright by their EXIF orientation, 16-bit grey is scaled to 8 bits,
    transparent pixels show the background, and an animation shows its first frame.

    Attributes:
        image_shape: (C, H, W), where C is 1 (grey) or 3 (RGB).
        fit: "crop" cuts off what protrudes, "pad" fills up with the background, "stretch" changes
            the aspect ratio.
        background: RGB, each in 0 … 255.
    """

    image_shape: tuple[int, int, int]
    fit: str
    background: tuple[int, int, int]

    def __call__(self, path: Path) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Reads a file as uint8, (C, H, W).

        Raises:
            Exception: Of almost any kind, as Pillow does for broken files.
        """
        channels, height, width = self.image_shape
        with Image.open(path) as opened:
            # JPEG files are decoded at a smaller scale where that is at least twice the target.
            opened.draft(None, (2 * max(height, width),) * 2)
            image = self._opaque(ImageOps.exif_transpose(opened))
        if self.fit == "crop":
            image = ImageOps.fit(image, (width, height), _FILTER)
        elif self.fit == "pad":
            image = ImageOps.pad(image, (width, height), _FILTER, self.background)
        else:
            image = image.resize((width, height), _FILTER)
        if channels == 1:
            return np.asarray(image.convert("L"))[None]
        return np.asarray(image).transpose(2, 0, 1)

    def _opaque(self, image: Image.Image) -> Image.Image:
        """The image as RGB, in front of the background."""
        if image.mode == "F":
            raise ValueError("expected 8 or 16 bits for a pixel, found floating point numbers")
        if image.mode.startswith("I"):
            # Pillow's conversion would clip 16 bits instead of scaling them.
            values = np.asarray(image).astype(np.int64).clip(0, 65535)
            image = Image.fromarray(((values + 128) // 257).astype(np.uint8))
        if image.has_transparency_data:
            ground = Image.new("RGBA", image.size, self.background)
            image = Image.alpha_composite(ground, image.convert("RGBA"))
        return image.convert("RGB")
