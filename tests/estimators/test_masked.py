"""Logits of −inf mask categories, in every estimator; other bad logits do not pass silently."""

import math

import pytest
import torch

from dvae import CategoricalLayer
from dvae.distributions import gumbel_noise
from dvae.estimators import ESTIMATORS
from dvae.estimators.base import StraightThroughEstimator
from dvae.estimators.straight_through_options import StraightThroughOptions

INF = math.inf
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


@pytest.fixture(params=sorted(ESTIMATORS))
def estimator(request):
    return ESTIMATORS[request.param]().build()


@pytest.fixture(params=[name for name, options in ESTIMATORS.items() if not options.enumerates])
def drawing(request):
    return ESTIMATORS[request.param]().build()


def _one_left(k):
    return torch.arange(k) != k - 1


MASKS = {
    "one category": lambda k: torch.arange(k) == 2,
    "the first and the last": lambda k: (torch.arange(k) % (k - 1)) == 0,
    "all but one": _one_left,
    "another for each latent": lambda k: torch.stack([_one_left(k), torch.arange(k) < k // 2]),
}


def _cost(sample):
    """A cost of each draw, quadratic in z."""
    weights = torch.arange(sample.z.shape[-1], dtype=torch.float64) + 1
    return (sample.z.double() * weights).sum((-2, -1)) ** 2


# torch's softmax is used for 20 categories, the project's own for 5.
@pytest.mark.parametrize("k", [5, 20])
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_masked_categories_are_never_drawn_and_get_no_gradient(estimator, k, mask, dtype):
    mask = MASKS[mask](k).expand(30, 2, k)
    logits = torch.randn(30, 2, k, dtype=dtype).masked_fill(mask, -INF).requires_grad_()
    sample = estimator.sample(logits, 0.3)
    assert sample.z.isfinite().all()
    masked = (sample.z * mask).sum((-2, -1))
    assert estimator.expected(masked, sample) == 0
    estimator.surrogate(_cost(sample), sample).backward()
    assert logits.grad.isfinite().all()
    assert (logits.grad[mask] == 0).all()
    # A latent with one category left has no gradient either.
    choice = (~mask).sum(-1) > 1
    assert (logits.grad[choice].abs().sum() > 0) == choice.any()
    layer = CategoricalLayer(0.3, estimator).eval()
    assert (layer(logits) * mask).sum() == 0


@pytest.mark.parametrize("k", [6, 24])
def test_a_masked_category_is_like_one_that_does_not_exist(estimator, k):
    """The same noise gives the same codes and gradients as with the masked categories removed."""
    estimator = estimator.eval()
    torch.manual_seed(0)
    theta = torch.randn(7, 2, k, dtype=torch.float64)
    noise = gumbel_noise(estimator.noise_shape((7, 2, k)), dtype=torch.float64)
    theta[..., k // 2 :] = -INF

    def pass_through(logits, noise):
        logits = logits.requires_grad_()
        sample = estimator.sample(logits, 0.6, noise=noise)
        loss = estimator.surrogate(_cost(sample), sample)
        return loss, torch.autograd.grad(loss, logits)[0]

    masked, removed = (
        pass_through(theta[..., :kept].clone(), noise[..., :kept]) for kept in (k, k // 2)
    )
    assert torch.allclose(masked[0], removed[0])
    assert torch.allclose(masked[1][..., : k // 2], removed[1], atol=1e-12)


def test_a_learned_temperature_gets_a_finite_gradient(estimator):
    layer = CategoricalLayer(0.5, estimator)
    layer.temperature = torch.nn.Parameter(torch.tensor(0.5))
    logits = torch.randn(6, 2, 5)
    logits[..., 1] = -INF
    sample = layer.sample(logits.requires_grad_())
    estimator.surrogate(_cost(sample), sample).backward()
    gradient = layer.temperature.grad
    assert gradient is None or gradient.isfinite()
    assert (logits.grad[..., 1] == 0).all()


class _Linear(StraightThroughEstimator):
    """An estimator of one's own, whose gradient is a multiple of that of z."""

    options = StraightThroughOptions

    def _relax(self, logits, perturbed, hard, temperature):
        return 2 * logits


def test_an_estimator_of_ones_own_needs_no_care_for_masks():
    logits = torch.randn(6, 2, 5)
    logits[..., 1] = -INF
    z = CategoricalLayer(1.0, _Linear())(logits.requires_grad_())
    weights = torch.arange(5.0)
    (z * weights).sum().backward()
    assert torch.equal(z.sum(-1), torch.ones(6, 2))
    assert torch.equal(logits.grad, (2 * weights * (weights != 1)).expand(6, 2, 5))


@pytest.mark.parametrize("value", [-INF, INF, math.nan])
def test_logits_without_a_distribution_do_not_pass_silently(estimator, value):
    """A latent with NaN or +inf, or −inf throughout, gives NaN, and others are as before."""
    logits = torch.randn(6, 2, 5)
    logits[2, 1, slice(None) if value == -INF else 3] = value
    sample = estimator.sample(logits, 0.5)
    assert estimator.surrogate(_cost(sample), sample).isnan()
    layer = CategoricalLayer(0.5, estimator).eval()
    z = layer(logits)
    assert z[2, 1].isnan().all()
    z[2, 1] = 0
    assert z.sum() == 11


@pytest.mark.parametrize("value", [-INF, INF, math.nan])
def test_only_the_codes_of_bad_logits_are_nan(drawing, value):
    logits = torch.randn(6, 2, 5)
    logits[2, 1, slice(None) if value == -INF else 3] = value
    z = drawing.sample(logits, 0.5).z
    bad = z.isnan().any(-1)
    assert bad[..., 2, 1].all()
    assert bad.sum() == bad[..., 2, 1].numel()
