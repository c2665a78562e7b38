"""Likelihoods of 256 values: exact probabilities, stable gradients, draws that follow them."""

import math

import pytest
import torch

from dvae.likelihoods.base import scale_of
from dvae.likelihoods.discretized_logistic import MIN_SCALE, DiscretizedLogistic
from dvae.likelihoods.logistic_mixture import LogisticMixture

VALUES = torch.arange(256, dtype=torch.float64) / 255
LOCATIONS = [-1e4, -3.0, -0.2, 0.0, 0.3, 0.5017, 1.0, 1.4, 1e4]
SCALES = [-1e4, -20.0, -7.0, -4.0, -2.0, 0.0, 3.0, 20.0, 1e4]


def _grid(dtype=torch.float64):
    """Parameters of the discretized logistic, (81, 1, 2, 1, 1), the extreme ones included."""
    grid = torch.cartesian_prod(torch.tensor(LOCATIONS), torch.tensor(SCALES))
    return grid.to(dtype)[:, None, :, None, None]


def _mixture(count, channels, *, spread=1.0, size=()):
    """A mixture and parameters (*size, 1, P, 1, 1) in float64."""
    likelihood = LogisticMixture(count)
    generator = torch.Generator().manual_seed(0)
    start = likelihood.start(torch.full((channels, 1, 1), 0.5)).double()
    noise = torch.randn(*size, 1, *start.shape, dtype=torch.float64, generator=generator)
    return likelihood, start + spread * noise


def _values(*axes):
    """One-pixel images, (M, C, 1, 1), of all combinations of the values on each channel."""
    grid = torch.cartesian_prod(*(torch.as_tensor(axis, dtype=torch.float64) for axis in axes))
    return grid.reshape(-1, len(axes), 1, 1)


def _logistic(location, scale):
    uniform = torch.distributions.Uniform(torch.zeros_like(location), torch.ones_like(location))
    transforms = torch.distributions.transforms
    return torch.distributions.TransformedDistribution(
        uniform,
        [transforms.SigmoidTransform().inv, transforms.AffineTransform(location, scale)],
        validate_args=False,
    )


def _table(location, scale):
    """Probabilities of the 256 values by differences of torch's distribution function."""
    edges = (torch.arange(255, dtype=torch.float64) + 0.5) / 255
    below = _logistic(location[..., None], scale[..., None]).cdf(edges)
    ends = torch.zeros_like(below[..., :1]), torch.ones_like(below[..., :1])
    return torch.cat([ends[0], below, ends[1]], -1).diff(dim=-1)


@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 1e-12), (torch.float32, 1e-4)])
def test_probabilities_of_all_values_sum_to_one(dtype, error):
    for likelihood, parameters in [
        (DiscretizedLogistic(), _grid(dtype)),
        (_mixture(3, 1)[0], _mixture(3, 1, spread=20, size=(50,))[1].to(dtype)),
    ]:
        probabilities = likelihood.log_prob(_values(VALUES).to(dtype), parameters).double().exp()
        assert probabilities.shape == (len(parameters), 256)
        assert (probabilities.sum(-1) - 1).abs().max() < error


def test_probabilities_are_differences_of_the_distribution_function():
    location, scale = _grid()[:, 0, :, 0, 0].unbind(-1)
    # Further away, the oracle's differences cancel.
    near = (location.abs() < 2) & (scale.abs() < 5)
    found = DiscretizedLogistic().log_prob(_values(VALUES), _grid()[near]).exp()
    expected = _table(location[near], scale_of(scale[near], MIN_SCALE))
    assert near.sum() > 15
    assert torch.allclose(found, expected, rtol=1e-9, atol=1e-14)


def test_coupled_colours_sum_to_one_channel_by_channel():
    """The sum over green and blue is the probability of red, which needs no coupling."""
    likelihood, parameters = _mixture(2, 3)
    groups = parameters.view(10, 2)
    red = torch.cat([groups[0], groups[1], groups[4]])[:, None, None]
    for value in (0, 100, 255):
        fixed = VALUES[value : value + 1]
        joint = likelihood.log_prob(_values(fixed, VALUES, VALUES), parameters)
        assert torch.allclose(joint.logsumexp(-1), likelihood.log_prob(_values(fixed), red))
    total = likelihood.log_prob(_values(VALUES), red).exp().sum().item()
    assert total == pytest.approx(1, abs=1e-12)


def test_coupled_colours_are_those_of_the_formula():
    """By tables of torch's distribution function, for four colours."""
    likelihood, parameters = _mixture(3, 3, spread=0.5)
    logits, *groups = parameters.view(10, 3)
    locations, scales, couplings = groups[:3], groups[3:6], groups[6:]
    for colour in ([0, 0, 0], [255, 0, 13], [40, 120, 200], [7, 255, 255]):
        red, green = (value / 255 - 0.5 for value in colour[:2])
        first, second, third = (c.tanh() for c in couplings)
        shifted = [
            locations[0],
            locations[1] + first * red,
            locations[2] + second * red + third * green,
        ]
        probability = logits.softmax(0)
        for location, scale, value in zip(shifted, scales, colour, strict=True):
            probability = probability * _table(location, scale_of(scale, MIN_SCALE))[:, value]
        image = torch.tensor(colour, dtype=torch.float64).view(1, 3, 1, 1) / 255
        found = likelihood.log_prob(image, parameters).item()
        assert found == pytest.approx(probability.sum().log().item(), rel=1e-9)


def test_a_mixture_of_one_is_a_discretized_logistic():
    grey = _grid()
    mixture = torch.cat([torch.full_like(grey[:, :, :1], 3.0), grey], 2)
    one = LogisticMixture(1)
    found = one.log_prob(_values(VALUES), mixture)
    expected = DiscretizedLogistic().log_prob(_values(VALUES), grey)
    assert torch.allclose(found, expected, rtol=1e-12, atol=1e-12)
    assert torch.allclose(one.mean(mixture), DiscretizedLogistic().mean(grey))


def _extremes():
    generator = torch.Generator().manual_seed(0)
    wild = 20 * (2 * torch.rand(200, 1, 40, 1, 1, generator=generator) - 1)
    wild[100:] *= 500
    return {
        "discretized_logistic": (DiscretizedLogistic(), _grid(torch.float32), 1),
        "logistic_mixture": (LogisticMixture(4), wild, 3),
    }


@pytest.mark.parametrize("name", _extremes())
def test_extreme_parameters_in_single_precision(name):
    likelihood, parameters, channels = _extremes()[name]
    colours = _values(*[[0.0, 1 / 255, 0.5019607843137255, 1.0]] * channels)
    results = []
    for dtype in (torch.float32, torch.float64):
        leaf = parameters.to(dtype).requires_grad_()
        value = likelihood.log_prob(colours.to(dtype), leaf)
        results.append((value, torch.autograd.grad(value.sum(), leaf)[0]))
        assert likelihood.mean(leaf).isfinite().all()
        assert likelihood.sample(leaf).isfinite().all()
    (value, gradient), (expected, exact) = results
    assert value.max() <= 1e-5
    assert value.isfinite().all()
    assert gradient.isfinite().all()
    assert torch.allclose(value.double(), expected, rtol=1e-4, atol=1e-3)
    assert torch.allclose(gradient.double(), exact, rtol=1e-3, atol=exact.abs().max() * 1e-5)


def test_gradients_are_those_of_finite_differences():
    colours = _values([0.0, 30 / 255, 1.0], [0.0, 1.0], [7 / 255])
    for likelihood, parameters in [
        (DiscretizedLogistic(), _mixture(1, 3)[1][:, 1:7]),
        _mixture(3, 3, spread=0.5),
    ]:
        assert torch.autograd.gradcheck(
            lambda p, likelihood=likelihood: likelihood.log_prob(colours, p),
            parameters.requires_grad_(),
        )


def test_scales_that_are_too_small_keep_a_gradient():
    parameters = torch.tensor([0.5, -20.0]).view(1, 2, 1, 1).requires_grad_()
    [gradient] = torch.autograd.grad(
        DiscretizedLogistic().log_prob(torch.full((1, 1, 1, 1), 0.2), parameters).sum(), parameters
    )
    assert gradient.flatten()[1] > 0


def test_means_are_those_of_the_values():
    for likelihood, parameters in [(DiscretizedLogistic(), _grid()), _mixture(3, 1, size=(20,))]:
        probabilities = likelihood.log_prob(_values(VALUES), parameters).exp()
        error = (likelihood.mean(parameters).flatten() - (probabilities * VALUES).sum(-1)).abs()
        # The smallest scales round to a value.
        assert error.max() < 1 / 510
        scales = parameters[:, 0, -parameters.shape[-3] // 3 :].amin((1, 2, 3))
        wide = scales > math.log(1 / 255)
        assert wide.sum() > 5
        assert error[wide].max() < 5e-5


@pytest.mark.parametrize("spread", [0.3, 0.8])
def test_draws_follow_the_probabilities(spread):
    """Two coupled channels, over 16 × 16 cells of 16 × 16 values each."""
    likelihood, parameters = _mixture(3, 2, spread=spread)
    assert parameters.shape[-3] == likelihood.channels(2) == 18
    table = likelihood.log_prob(_values(VALUES, VALUES), parameters).exp()
    cells = table.view(16, 16, 16, 16).sum((1, 3))
    assert cells.sum().item() == pytest.approx(1, abs=1e-12)
    count, generator = 50_000, torch.Generator().manual_seed(0)

    def chi_squared(drawn_from):
        drawn = likelihood.sample(drawn_from.expand(count, -1, -1, -1), generator).flatten(1)
        codes = (255 * drawn).round().long()
        assert torch.equal(codes.double() / 255, drawn)
        place = codes[:, 0] // 16 * 16 + codes[:, 1] // 16
        found, expected = place.bincount(minlength=256).double(), count * cells.flatten()
        common = expected > 5
        rest = (found[~common].sum() - expected[~common].sum()).square()
        total = ((found - expected).square() / expected)[common].sum()
        return (total + rest / expected[~common].sum().clamp(min=1)).item(), int(common.sum())

    total, freedom = chi_squared(parameters)
    # 5 standard deviations above the mean: a false alarm once in 100,000 seeds or so.
    assert total < freedom + 5 * math.sqrt(2 * freedom)
    # Control: without coupling, the draws are others.
    uncoupled = parameters.clone()
    uncoupled[..., -3:, :, :] = 0
    assert chi_squared(uncoupled)[0] > freedom + 5 * math.sqrt(2 * freedom)


def test_draws_of_three_channels_follow_one_another():
    """With tiny scales, a draw is nearly certain, and its probability close to 1."""
    likelihood = LogisticMixture(2)
    groups = torch.zeros(10, 2, dtype=torch.float64)
    groups[0] = torch.tensor([40.0, 0.0])
    groups[1:4, 0] = torch.tensor([60.0, 200.0, 120.0], dtype=torch.float64) / 255
    groups[4:7] = -20
    groups[7:, 0] = torch.tensor([0.9, -0.4, 0.7])
    parameters = groups.view(1, 20, 1, 1)
    # Of other seeds, 3 in 100 draw a neighbour.
    drawn = likelihood.sample(parameters, torch.Generator().manual_seed(0))
    red, green, blue = (255 * drawn).flatten().tolist()
    first, second, third = groups[7:, 0].tanh().tolist()
    assert red == pytest.approx(60)
    assert green == pytest.approx(200 + first * (60 - 127.5), abs=1.5)
    assert blue == pytest.approx(120 + second * (60 - 127.5) + third * (green - 127.5), abs=1.5)
    assert likelihood.log_prob(drawn, parameters).item() > -4
    assert (likelihood.mean(parameters) - drawn).abs().max() < 2 / 255


def test_components_start_apart():
    likelihood, generator = LogisticMixture(4), torch.Generator().manual_seed(0)
    images = torch.randint(256, (8, 3, 2, 2), generator=generator).float() / 255
    parameters = likelihood.start(torch.full((3, 2, 2), 0.5)).requires_grad_()
    [gradient] = torch.autograd.grad(likelihood.log_prob(images, parameters).sum(), parameters)
    logits = gradient.unflatten(0, (10, 4))[0]
    assert (logits.diff(dim=0) != 0).all()
