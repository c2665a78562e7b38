"""Gradient estimators for categorical samples, one file a family."""

from dvae.estimators.base import CodeSample, Estimator, check_temperature, replace_gradient
from dvae.estimators.exact import Exact
from dvae.estimators.gumbel import GumbelSoftmaxEstimator, STGumbelSoftmax
from dvae.estimators.rao import GumbelRao, ReinMaxRao
from dvae.estimators.score_function import RLOO, Reinforce
from dvae.estimators.straight_through import ZGR, GappedST, ReinMax, StraightThrough

__all__ = [
    "ESTIMATORS",
    "RLOO",
    "ZGR",
    "CodeSample",
    "Estimator",
    "Exact",
    "GappedST",
    "GumbelRao",
    "GumbelSoftmaxEstimator",
    "ReinMax",
    "ReinMaxRao",
    "Reinforce",
    "STGumbelSoftmax",
    "StraightThrough",
    "check_temperature",
    "replace_gradient",
]

ESTIMATORS: dict[str, type[Estimator]] = {
    "exact": Exact,
    "gapped_st": GappedST,
    "gumbel_rao": GumbelRao,
    "gumbel_softmax": GumbelSoftmaxEstimator,
    "reinforce": Reinforce,
    "reinmax": ReinMax,
    "reinmax_rao": ReinMaxRao,
    "rloo": RLOO,
    "st_gumbel_softmax": STGumbelSoftmax,
    "straight_through": StraightThrough,
    "zgr": ZGR,
}
"""The names by which configurations and the layer know the estimators."""
