"""Likelihoods of real pixels: against torch.distributions, at extremes, and their draws."""

import math

import pytest
import torch
from torch.distributions import Laplace, Normal, TransformedDistribution
from torch.distributions.transforms import AffineTransform, SigmoidTransform

from dvae.likelihoods.gaussian import Gaussian
from dvae.likelihoods.logit_laplace import LogitLaplace

SHAPE = (3, 2, 4)
DENSITIES = {
    "image": Gaussian("image"),
    "pixel": Gaussian("pixel"),
    "logit_laplace": LogitLaplace(),
}


@pytest.fixture(params=DENSITIES)
def likelihood(request):
    return DENSITIES[request.param]


def _parameters(likelihood, spread=0.5):
    """(2, 5, P, H, W) in float64."""
    generator = torch.Generator().manual_seed(0)
    start = likelihood.start(torch.full(SHAPE, 0.5)).double()
    noise = torch.randn(2, 5, *start.shape, dtype=torch.float64, generator=generator)
    return start + spread * noise


def _images():
    generator = torch.Generator().manual_seed(1)
    return torch.randint(256, (5, *SHAPE), generator=generator).double() / 255


def _scale(parameter):
    return torch.where(parameter < 0, parameter.exp(), 1 + parameter)


def _oracle(likelihood, parameters):
    """The distribution of the pixels."""
    location, scale = parameters[..., :3, :, :], parameters[..., 3:, :, :]
    if isinstance(likelihood, LogitLaplace):
        base = Laplace(location, _scale(scale) + 4 * 0.8 / (255 * math.sqrt(12)))
        return TransformedDistribution(
            base, [SigmoidTransform(), AffineTransform(-0.1 / 0.8, 1 / 0.8)], validate_args=False
        )
    if likelihood.scale == "image":
        scale = scale.mean((-2, -1), keepdim=True)
    return Normal(location, _scale(scale) + 1 / (255 * math.sqrt(12)))


def test_densities_are_those_of_torch(likelihood):
    parameters, images = _parameters(likelihood), _images()
    expected = _oracle(likelihood, parameters).log_prob(images).sum((-3, -2, -1))
    assert torch.allclose(likelihood.log_prob(images, parameters), expected, rtol=1e-10)


def test_gradients_are_those_of_finite_differences(likelihood):
    parameters = _parameters(likelihood).requires_grad_()
    assert torch.autograd.gradcheck(lambda p: likelihood.log_prob(_images(), p), parameters)


@pytest.mark.parametrize("location", [-1e4, 0.0, 0.5, 1e4])
@pytest.mark.parametrize("log_scale", [-1e4, -20.0, 0.0, 20.0, 1e4])
def test_extreme_parameters_in_single_precision(likelihood, location, log_scale):
    parameters = likelihood.start(torch.full(SHAPE, 0.5))
    parameters[:3], parameters[3:] = location, log_scale
    results = []
    for dtype in (torch.float32, torch.float64):
        leaf, images = parameters.to(dtype).requires_grad_(), _images().to(dtype)
        value = likelihood.log_prob(images, leaf)
        results.append((value.double(), torch.autograd.grad(value.sum(), leaf)[0].double()))
        assert likelihood.mean(leaf).isfinite().all()
        assert likelihood.sample(leaf).isfinite().all()
    for found, expected in zip(*results, strict=True):
        assert found.isfinite().all()
        assert torch.allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_scales_that_are_too_small_keep_a_gradient(likelihood):
    parameters = likelihood.start(torch.full(SHAPE, 0.5))
    parameters[3:] = -15
    leaf = parameters.requires_grad_()
    [gradient] = torch.autograd.grad(likelihood.log_prob(_images().float(), leaf).sum(), leaf)
    assert (gradient[3:] > 0).all()


def test_draws_follow_the_density(likelihood):
    """Distances of the draws' distribution functions from the oracle's, for 24 pixels."""
    # Locations in the middle and small scales, so that nothing is clipped.
    parameters = likelihood.start(torch.full(SHAPE, 0.5)).double()
    parameters[3:] = -3
    count, generator = 20_000, torch.Generator().manual_seed(0)
    oracle = _oracle(likelihood, parameters)

    def largest_distance(drawn_from):
        drawn = likelihood.sample(drawn_from.expand(count, *drawn_from.shape), generator)
        assert drawn.min() >= 0
        assert drawn.max() <= 1
        below = oracle.cdf(drawn).sort(0).values
        ranks = (torch.arange(count) + 0.5).view(-1, 1, 1, 1) / count
        return (below - ranks).abs().max().item()

    # For one pixel, more than 2.3 / sqrt(count) once in 20,000 seeds.
    assert largest_distance(parameters) < 2.3 / math.sqrt(count)
    # Control: draws with another scale fail.
    other = parameters.clone()
    other[3:] += 0.2
    assert largest_distance(other) > 2.3 / math.sqrt(count)


def test_means_are_the_centres_of_the_densities(likelihood):
    parameters = _parameters(likelihood)
    oracle = _oracle(likelihood, parameters)
    centre = likelihood.mean(parameters)
    inside = (centre > 0) & (centre < 1)
    assert inside.double().mean() > 0.5
    half = torch.full_like(centre, 0.5)
    assert torch.allclose(oracle.cdf(centre)[inside], half[inside])


def test_the_scale_of_an_image_is_one():
    """Its parameters are the mean of a channel, which every pixel of that channel moves."""
    likelihood = DENSITIES["image"]
    parameters = _parameters(likelihood)
    assert parameters.shape[-3] == 4
    moved = parameters.clone()
    moved[..., 3, 0, 0] += 1.6
    moved[..., 3, 1, 1] -= 1.6
    found, expected = (likelihood.log_prob(_images(), p) for p in (moved, parameters))
    assert torch.allclose(found, expected)
