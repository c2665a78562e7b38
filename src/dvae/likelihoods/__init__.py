"""Likelihoods of pixels: base class in `base.py`; each likelihood has its options beside it."""

from pkgutil import extend_path
from typing import TYPE_CHECKING

from dvae.likelihoods.options import LikelihoodOptions
from dvae.options import find_members, union_of

__all__ = ["LIKELIHOODS", "AnyLikelihood", "LikelihoodOptions"]

__path__ = extend_path(__path__, __name__)

LIKELIHOODS = find_members(__name__, __path__, LikelihoodOptions)
"""Name → options class."""

if TYPE_CHECKING:
    AnyLikelihood = LikelihoodOptions
else:
    AnyLikelihood = union_of(LIKELIHOODS)
