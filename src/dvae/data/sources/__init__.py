"""Sources of images: base class in `base.py`; each source has its options beside it."""

from pkgutil import extend_path
from typing import TYPE_CHECKING

from dvae.data.options import ImageDataOptions
from dvae.options import find_members, union_of

__all__ = ["SOURCES", "AnyImageData"]

__path__ = extend_path(__path__, __name__)

SOURCES = find_members(__name__, __path__, ImageDataOptions)
"""Name → options class."""

if TYPE_CHECKING:
    AnyImageData = ImageDataOptions
else:
    AnyImageData = union_of(SOURCES)
