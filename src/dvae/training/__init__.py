"""Training code that all tasks share.

Temperatures and optimizers are families; modules that end with `_options` declare their members.
"""

from pkgutil import extend_path
from typing import TYPE_CHECKING

from dvae.options import find_members, union_of
from dvae.training.options import OptimizerOptions, TemperatureOptions

__all__ = ["OPTIMIZERS", "TEMPERATURES", "AnyOptimizer", "AnyTemperature"]

__path__ = extend_path(__path__, __name__)

OPTIMIZERS = find_members(__name__, __path__, OptimizerOptions)
"""Name → options class."""

TEMPERATURES = find_members(__name__, __path__, TemperatureOptions)
"""Name → options class."""

if TYPE_CHECKING:
    AnyOptimizer = OptimizerOptions
    AnyTemperature = TemperatureOptions
else:
    AnyOptimizer = union_of(OPTIMIZERS)
    AnyTemperature = union_of(TEMPERATURES)
