"""One contract for all likelihoods, on colour images that are not square."""

import math

import pytest
import torch

from dvae.likelihoods import LIKELIHOODS
from dvae.likelihoods.bernoulli import Bernoulli

SHAPE = (3, 5, 7)
BATCH = 4


# Each member with its defaults, and with other options where these change the parameters.
MEMBERS = {name: {"name": name} for name in LIKELIHOODS} | {
    "gaussian, pixel": {"name": "gaussian", "scale": "pixel"},
}


@pytest.fixture(params=sorted(MEMBERS))
def likelihood(request):
    options = MEMBERS[request.param]
    return LIKELIHOODS[options["name"]](**options).build()


@pytest.fixture
def parameters(likelihood):
    """Parameters (2, B, P, H, W) that scatter around those of a mean image."""
    generator = torch.Generator().manual_seed(0)
    start = likelihood.start(0.2 + 0.6 * torch.rand(SHAPE, generator=generator))
    return start + 0.5 * torch.randn(2, BATCH, *start.shape, generator=generator)


@pytest.fixture
def images(likelihood):
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(BATCH, *SHAPE, generator=generator)
    if likelihood.pixels == "binary":
        return (images < 0.4).float()
    # Black and white are well represented.
    return ((511 * images - 128).round().clamp(0, 255)) / 255


def test_options_are_those_of_the_member(likelihood):
    assert LIKELIHOODS[likelihood.options().name] is likelihood.options


def test_shapes(likelihood, parameters, images):
    channels, *size = SHAPE
    assert parameters.shape == (2, BATCH, likelihood.channels(channels), *size)
    for leading in [(), (2,), (1, 2)]:
        several = parameters[0].expand(*leading, *parameters.shape[1:])
        assert likelihood.log_prob(images, several).shape == (*leading, BATCH)
        assert likelihood.mean(several).shape == (*leading, BATCH, *SHAPE)
        assert likelihood.sample(several).shape == (*leading, BATCH, *SHAPE)


def test_leading_axes_are_independent(likelihood, parameters, images):
    both = likelihood.log_prob(images, parameters)
    each = torch.stack([likelihood.log_prob(images, one) for one in parameters])
    assert torch.allclose(both, each)
    assert not torch.allclose(both[0], both[1])


def test_means_and_samples_are_images(likelihood, parameters):
    for pixels in (likelihood.mean(10 * parameters), likelihood.sample(10 * parameters)):
        assert pixels.min() >= 0
        assert pixels.max() <= 1


def test_start_has_the_mean_image(likelihood):
    mean = torch.linspace(0.1, 0.9, math.prod(SHAPE)).reshape(SHAPE)
    start = likelihood.start(mean)
    assert start.shape == (likelihood.channels(SHAPE[0]), *SHAPE[1:])
    assert torch.allclose(likelihood.mean(start), mean, atol=0.05)
    for extreme in (0.0, 1.0):
        assert likelihood.start(torch.full(SHAPE, extreme)).isfinite().all()


def test_samples_have_the_mean(likelihood, parameters):
    n, generator = 4000, torch.Generator().manual_seed(0)
    expected = likelihood.mean(parameters[0, 0])

    if likelihood.pixels == "real":
        pytest.skip("the centre of a density is not its mean after clipping")

    def largest_z(drawn_from):
        images = likelihood.sample(drawn_from.expand(n, *drawn_from.shape), generator)
        # At least that of a value of 256, for pixels whose draws are all the same.
        error = (images.std(0) + 1 / 255) / math.sqrt(n)
        return ((images.mean(0) - expected) / error).abs().max()

    # 105 means within 4.5 standard errors: a false alarm once in 1,000 seeds.
    assert largest_z(parameters[0, 0]) < 4.5
    # Control: samples from other parameters fail.
    assert largest_z(parameters[0, 0] + 0.3) > 4.5


def test_samples_are_reproducible_by_their_generator(likelihood, parameters):
    first, again, other = (
        likelihood.sample(parameters, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_log_prob_keeps_its_precision_in_half_precision(likelihood, parameters, images):
    half = parameters.bfloat16()
    expected = likelihood.log_prob(images, half.float())
    assert torch.equal(likelihood.log_prob(images, half), expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(likelihood.log_prob(images, half), expected)


def test_linear_form_equals_log_prob(likelihood, parameters, images):
    codes, images = parameters.flatten(0, 1).double(), images.double()
    form = likelihood.linear_form(codes)
    if form is None:
        pytest.skip("has no linear form")
    weights, constant = form
    scores = weights @ images.flatten(1).T + constant.unsqueeze(1)
    assert torch.allclose(scores, likelihood.log_prob(images, codes.unsqueeze(1)), rtol=1e-12)


def test_bernoulli_has_a_linear_form():
    assert Bernoulli().linear_form(torch.zeros(2, *SHAPE)) is not None


def test_every_parameter_gets_a_finite_gradient(likelihood, parameters, images):
    leaves = [parameters.requires_grad_(), *likelihood.parameters()]
    gradients = torch.autograd.grad(likelihood.log_prob(images, parameters).sum(), leaves)
    for gradient in gradients:
        assert gradient.isfinite().all()
        assert gradient.abs().sum() > 0
    assert (gradients[0] != 0).all(), "every pixel should count"


@pytest.mark.parametrize("size", [1.0, 100.0])
def test_bernoulli_is_that_of_torch(size):
    generator = torch.Generator().manual_seed(0)
    logits = size * torch.randn(2, BATCH, *SHAPE, dtype=torch.float64, generator=generator)
    images = torch.rand(BATCH, *SHAPE, generator=generator).round().double()
    expected = torch.distributions.Bernoulli(logits=logits)
    log_prob = Bernoulli().log_prob(images, logits)
    assert torch.allclose(log_prob, expected.log_prob(images).sum((2, 3, 4)), rtol=1e-12)
    assert torch.equal(Bernoulli().mean(logits), expected.mean)
    drawn = Bernoulli().sample(logits, generator)
    assert set(drawn.unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("logit", [0.0, 1e-6, -90.0, 90.0, 1e4, -1e4])
def test_bernoulli_at_a_single_logit_in_float32(logit):
    images = torch.tensor([0.0, 1.0, 0.25]).view(3, 1, 1, 1)
    logits = torch.full((3, 1, 1, 1), logit, requires_grad=True)
    log_prob = Bernoulli().log_prob(images, logits)
    log_prob.sum().backward()
    wide = logits.detach().double()
    expected = images * wide - torch.logaddexp(wide, wide.new_zeros(()))
    assert torch.allclose(log_prob.double(), expected.flatten(), rtol=1e-6, atol=1e-7)
    assert torch.allclose(logits.grad.double(), images - wide.sigmoid(), atol=1e-6)
