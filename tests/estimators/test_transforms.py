"""Estimators under `torch.func`, and with the categories on another axis."""

import pytest
import torch
from torch.func import functional_call, grad, jacrev, stack_module_state, vmap

from dvae import CategoricalLayer
from dvae.distributions import gumbel_noise
from dvae.estimators import ESTIMATORS

# torch warns of operations that vmap has to run in a loop.
pytestmark = pytest.mark.filterwarnings("error:There is a performance drop")


@pytest.fixture(params=sorted(ESTIMATORS))
def estimator(request):
    return ESTIMATORS[request.param]().build()


@pytest.fixture(params=[name for name, o in ESTIMATORS.items() if not o.score_function])
def pathwise(request):
    """Estimators whose z has a gradient."""
    return ESTIMATORS[request.param]().build()


@pytest.fixture(params=[name for name, options in ESTIMATORS.items() if not options.enumerates])
def drawing(request):
    return ESTIMATORS[request.param]().build()


def _cost(z):
    """A cost of each draw, quadratic in z (..., N, K)."""
    weights = torch.linspace(-1, 2, z.shape[-2] * z.shape[-1]).reshape(z.shape[-2:])
    return (z * weights).sum((-2, -1)) ** 2


@pytest.mark.parametrize("randomness", ["different", "same"])
@pytest.mark.parametrize("training", [True, False])
def test_vmap(drawing, randomness, training):
    """Mapped over rows of equal logits: the draws differ or agree, as vmap was asked."""
    layer = CategoricalLayer(0.5, drawing)
    draw = (lambda row: layer.sample(row).z) if training else layer.eval()
    logits = torch.randn(4, 5).expand(50, 4, 5)
    z = vmap(draw, randomness=randomness, out_dims=0)(logits)
    assert torch.allclose(z.sum(-1), torch.ones(()))
    assert z.shape[-2:] == (4, 5)
    assert torch.equal(z, z[:1].expand_as(z)) is (randomness == "same")


@pytest.mark.parametrize("randomness", ["different", "same"])
def test_vmap_of_the_layer_in_training(pathwise, randomness):
    layer, logits = CategoricalLayer(0.5, pathwise), torch.randn(7, 4, 5, requires_grad=True)
    z = vmap(layer, randomness=randomness)(logits)
    _cost(z).sum().backward()
    assert z.shape == (7, 4, 5)
    assert logits.grad.isfinite().all()
    assert (logits.grad.abs().sum((-2, -1)) > 0).all()


@pytest.mark.parametrize("masked", [False, True])
def test_gradients_of_each_example(estimator, masked):
    """vmap(grad) gives what a loop over the examples gives."""
    estimator = estimator.eval()

    def loss(logits, noise):
        sample = estimator.sample(logits, 0.5, noise=noise)
        return estimator.surrogate(_cost(sample.z), sample)

    logits = torch.randn(6, 3, 4)
    if masked:
        logits[..., 1] = -torch.inf
    noise = torch.stack([gumbel_noise(estimator.noise_shape((3, 4))) for _ in logits])
    together = vmap(grad(loss))(logits, noise)
    for row, own, found in zip(logits, noise, together, strict=True):
        leaf = row.clone().requires_grad_()
        (expected,) = torch.autograd.grad(loss(leaf, own), leaf)
        assert torch.allclose(found, expected, atol=1e-6)


def test_gradients_of_a_linear_cost(pathwise):
    """Here vmap maps the draws, but not the gradient that reaches them."""
    weights, logits = torch.randn(3, 4), torch.randn(6, 3, 4)
    noise = torch.stack([gumbel_noise(pathwise.noise_shape((3, 4))) for _ in logits])

    def loss(row, own):
        return (pathwise.sample(row, 0.5, noise=own).z * weights).sum()

    together = vmap(grad(loss))(logits, noise)
    alone = torch.stack([grad(loss)(row, own) for row, own in zip(logits, noise, strict=True)])
    assert torch.allclose(together, alone, atol=1e-6)


def test_jacobian(pathwise):
    logits = torch.randn(2, 4, requires_grad=True)
    noise = gumbel_noise(pathwise.noise_shape((2, 4)))
    jacobian = jacrev(lambda theta: pathwise.sample(theta, 0.5, noise=noise).z)(logits)
    z = pathwise.sample(logits, 0.5, noise=noise).z.flatten()
    rows = [torch.autograd.grad(entry, logits, retain_graph=True)[0] for entry in z]
    assert torch.allclose(jacobian.flatten(0, 1), torch.stack(rows), atol=1e-6)


def test_an_ensemble_of_layers(pathwise):
    """Each layer has a temperature of its own, which changes no code."""
    layers = [CategoricalLayer(temperature, pathwise) for temperature in (0.1, 10.0)]
    _, buffers = stack_module_state(layers)

    def call(buffers, logits):
        return functional_call(layers[0], buffers, (logits,))

    z = vmap(call, randomness="same")(buffers, torch.zeros(2, 3, 4))
    assert torch.equal(*z.argmax(-1))
    assert torch.equal(*z) is pathwise.hard


@pytest.mark.parametrize("dim", [1, -3])
def test_categories_on_another_axis(estimator, dim):
    """Logits (B, K, H, W): as with the K moved to the end and the H · W latents in one axis."""
    logits = torch.randn(5, 3, 2, 2)
    moved = logits.movedim(1, -1).flatten(1, 2)
    noise = gumbel_noise(estimator.noise_shape((5, 3, 2, 2)))
    moved_noise = noise.movedim(-3, -1).flatten(-3, -2) if noise.numel() else noise
    layer, plain = CategoricalLayer(0.5, estimator, dim=dim), CategoricalLayer(0.5, estimator)
    results = []
    for own, theta, gumbels in ((layer, logits, noise), (plain, moved, moved_noise)):
        theta = theta.clone().requires_grad_()
        sample = own.eval().sample(theta, noise=gumbels)
        z = sample.z if own is plain else sample.z.movedim(-3, -1).flatten(-3, -2)
        # One cost for each image and draw.
        loss = estimator.surrogate(_cost(z), sample)
        results.append((sample, torch.autograd.grad(loss, theta)[0]))
    (found, gradient), (expected, flat_gradient) = results
    assert found.z.shape[-3:] == (3, 2, 2)
    assert found.codes.shape[-3:] == (5, 2, 2)
    assert torch.equal(found.logits, logits)
    assert torch.equal(found.z.movedim(-3, -1).flatten(-3, -2), expected.z)
    assert torch.equal(found.codes.flatten(-2), expected.codes)
    assert torch.allclose(gradient.movedim(1, -1).flatten(1, 2), flat_gradient)
    evaluated = layer.eval()(logits)
    assert evaluated.shape == logits.shape
    assert torch.equal(evaluated.sum(1), torch.ones(5, 2, 2))


def test_the_axis_of_one_call():
    logits = torch.randn(2, 3, 4)
    for layer, dim in ((CategoricalLayer(), 1), (CategoricalLayer(dim=0), -2)):
        sample = layer.sample(logits, dim=dim)
        assert torch.allclose(sample.z.sum(1), torch.ones(()))
        assert torch.allclose(sample.log_z.exp(), sample.z)
        assert sample.codes.shape == (2, 4)
        for wrong in (3, -4):
            with pytest.raises(ValueError, match=rf"dim: .* logits \(2, 3, 4\), found {wrong}"):
                layer.sample(logits, dim=wrong)
