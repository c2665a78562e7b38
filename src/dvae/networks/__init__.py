"""Encoders and decoders: base classes in `base.py`; each pair has its options beside it."""

from pkgutil import extend_path
from typing import TYPE_CHECKING

from dvae.networks.options import NetworkOptions
from dvae.options import find_members, union_of

__all__ = ["NETWORKS", "AnyNetwork", "NetworkOptions"]

__path__ = extend_path(__path__, __name__)

NETWORKS = find_members(__name__, __path__, NetworkOptions)
"""Name → options class."""

if TYPE_CHECKING:
    AnyNetwork = NetworkOptions
else:
    AnyNetwork = union_of(NETWORKS)
