"""The VAE, its training objectives and its evaluation, in plain torch.

Each objective has its options beside it.
"""

from pkgutil import extend_path
from typing import TYPE_CHECKING

from dvae.models.options import ObjectiveOptions
from dvae.options import find_members, union_of

__all__ = ["OBJECTIVES", "AnyObjective", "ObjectiveOptions"]

__path__ = extend_path(__path__, __name__)

OBJECTIVES = find_members(__name__, __path__, ObjectiveOptions)
"""Name → options class."""

if TYPE_CHECKING:
    AnyObjective = ObjectiveOptions
else:
    AnyObjective = union_of(OBJECTIVES)
