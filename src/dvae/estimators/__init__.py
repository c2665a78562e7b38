"""Gradient estimators for categorical samples.

`base.py` holds the base classes. Each other module holds estimators, with their options beside it
in `<module>_options.py`: `ESTIMATORS` collects them from there.
"""

from pkgutil import extend_path
from typing import TYPE_CHECKING

from dvae.estimators.options import EstimatorOptions
from dvae.options import find_members, union_of

__all__ = ["ESTIMATORS", "AnyEstimator", "EstimatorOptions"]

# Other folders on Python's path can add members in <folder>/dvae/estimators/.
__path__ = extend_path(__path__, __name__)

ESTIMATORS = find_members(__name__, __path__, EstimatorOptions)
"""Name → options class: `ESTIMATORS["rloo"](num_samples=8).build()`."""

if TYPE_CHECKING:
    AnyEstimator = EstimatorOptions
else:
    AnyEstimator = union_of(ESTIMATORS)
