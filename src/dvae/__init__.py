"""Variational autoencoders with categorical latents.

>>> from dvae import GumbelSoftmax
>>> layer = GumbelSoftmax(temperature=0.5)
"""

from importlib import import_module
from pkgutil import extend_path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dvae.commands.api import compose, load, train
    from dvae.errors import UserError
    from dvae.layers import CategoricalLayer, GumbelSoftmax

__all__ = ["CategoricalLayer", "GumbelSoftmax", "UserError", "compose", "load", "train"]

__version__ = "0.1.0"

# Other folders on Python's path can add members to the families: see docs/extending.md.
__path__ = extend_path(__path__, __name__)

_MODULES = {
    "CategoricalLayer": "dvae.layers",
    "GumbelSoftmax": "dvae.layers",
    "UserError": "dvae.errors",
    "compose": "dvae.commands.api",
    "load": "dvae.commands.api",
    "train": "dvae.commands.api",
}


def __getattr__(name: str) -> Any:
    # Import on first use, so that checking a configuration does not wait for torch.
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
