"""Variational autoencoders with categorical latents.

>>> from dvae import GumbelSoftmax
>>> layer = GumbelSoftmax(temperature=0.5)
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dvae.layers import GumbelSoftmax

__all__ = ["GumbelSoftmax"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # Loaded on first use: reading a configuration must not wait for torch.
    if name == "GumbelSoftmax":
        from dvae.layers import GumbelSoftmax

        return GumbelSoftmax
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
