"""Gradient estimators for categorical samples.

`base.py` is the contract. An estimator is a file with its class and a file with its options beside
it, `<file>_options.py`; nothing else lists it.
"""

from pkgutil import extend_path
from typing import TYPE_CHECKING

from dvae.estimators.options import EstimatorOptions
from dvae.options import find_members, union_of

__all__ = ["ESTIMATORS", "AnyEstimator", "EstimatorOptions"]

# Folders elsewhere on Python's path can add members: <folder>/dvae/estimators/….
__path__ = extend_path(__path__, __name__)

ESTIMATORS = find_members(__name__, __path__, EstimatorOptions)
"""Name → options: `ESTIMATORS["rloo"](num_samples=8).build()`."""

if TYPE_CHECKING:
    AnyEstimator = EstimatorOptions
else:
    AnyEstimator = union_of(ESTIMATORS)
