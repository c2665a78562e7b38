"""Priors over codes: base class in `base.py`; each prior has its options beside it."""

from pkgutil import extend_path
from typing import TYPE_CHECKING

from dvae.options import find_members, union_of
from dvae.priors.options import PriorOptions

__all__ = ["PRIORS", "AnyPrior", "PriorOptions"]

__path__ = extend_path(__path__, __name__)

PRIORS = find_members(__name__, __path__, PriorOptions)
"""Name → options class."""

if TYPE_CHECKING:
    AnyPrior = PriorOptions
else:
    AnyPrior = union_of(PRIORS)
