"""Variational autoencoders with categorical latents.

>>> from dvae import GumbelSoftmax
>>> layer = GumbelSoftmax(temperature=0.5)
"""

from pkgutil import extend_path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dvae.layers import CategoricalLayer, GumbelSoftmax

__all__ = ["CategoricalLayer", "GumbelSoftmax"]

# Other folders on Python's path can add members to the families: see docs/extending.md.
__path__ = extend_path(__path__, __name__)


def __getattr__(name: str) -> Any:
    # Import the layers on first use, so that checking a configuration does not wait for torch.
    if name in __all__:
        from dvae import layers

        return getattr(layers, name)
    if name == "__version__":
        from importlib.metadata import version

        return version("dvae")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
