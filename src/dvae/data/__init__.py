"""Sources of images, binarization and batches; the base class of every task's data."""

from pkgutil import extend_path

# Folders elsewhere on Python's path can add sources: <folder>/dvae/data/sources/….
__path__ = extend_path(__path__, __name__)
