"""Gradient estimators for categorical samples, one file a family."""

from dvae.estimators.base import CodeSample, Estimator, check_temperature, replace_gradient
from dvae.estimators.gumbel import GumbelSoftmaxEstimator, STGumbelSoftmax

__all__ = [
    "ESTIMATORS",
    "CodeSample",
    "Estimator",
    "GumbelSoftmaxEstimator",
    "STGumbelSoftmax",
    "check_temperature",
    "replace_gradient",
]

ESTIMATORS: dict[str, type[Estimator]] = {
    "gumbel_softmax": GumbelSoftmaxEstimator,
    "st_gumbel_softmax": STGumbelSoftmax,
}
"""The names by which configurations and the layer know the estimators."""
