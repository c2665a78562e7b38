"""Codes in groups and hierarchies of codes, against enumeration in float64."""

import math

import pytest
import torch

from dvae.distributions import all_codes, one_hot
from dvae.estimators.exact import Exact
from dvae.estimators.gumbel import GumbelSoftmaxEstimator
from dvae.estimators.score_function import RLOO, Reinforce
from dvae.layers import CategoricalLayer
from dvae.models.bounds import (
    Enumeration,
    exact_log_likelihood,
    importance_weighted_bound,
    log_importance_weights,
    sampled_bound,
)
from dvae.models.objectives import ELBO, VIMCO
from dvae.randomness import ImageStreams

MODELS = {
    "groups": ["model.groups=2", "model.num_latents=4"],
    "ladder": ["model.levels=[2,2]"],
    "bottom_up": ["model.levels=[2,2]", "model.inference=bottom_up"],
    "three_levels": ["model.levels=[2,1,1]", "model.inference=bottom_up", "model.skips=true"],
    "linear": ["model.levels=[1,1,2]", "model.between=[]", "model.centered=true"],
    "prior": ["model.groups=2", "model.num_latents=4", "prior=autoregressive", "prior.width=8"],
    "top": ["model.levels=[1,3]", "model.inference=bottom_up", "prior=autoregressive"],
    "grid": ["model=resnet", "model.groups=2", "model.downsample=4"],
    "grids": ["model=resnet", "model.levels=2"],
    "grids_skips": ["model=resnet", "model.levels=2", "model.skips=true"],
    "top_grid": ["model=resnet", "model.levels=2", "prior=autoregressive", "prior.width=8"],
    "splits": ["model.groups=2", "model.num_latents=4", "logits=catnat"],
    "splits_up": ["model.levels=[2,2]", "model.inference=bottom_up", "logits=catnat"],
    "hypercube": ["model.levels=[2,2]", "model.code_map=hypercube", "model.num_categories=4"],
}
OWN = [
    "data.size=8",
    "model.num_categories=3",
    "model.normalization=none",
    "model.activation=tanh",
    "logits=softmax",
]
FLAT = ["model.hidden=[8]", "model.between=[8]"]
GRID = ["model.channels=6", "model.blocks=1", "model.embedding_dim=4"]


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(1)
    return (torch.rand(3, 1, 8, 8, generator=generator) < 0.3).double()


@pytest.fixture(params=MODELS)
def vae(request, make_config):
    """An untrained model whose posterior and prior depend on the codes drawn before."""
    torch.manual_seed(0)
    model = MODELS[request.param]
    sizes = GRID if "model=resnet" in model else FLAT
    learned = [] if "prior=autoregressive" in model else ["prior=learned"]
    vae = make_config(*OWN, *sizes, *learned, *model).build_model().double().eval()
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter += 0.4 * torch.randn_like(parameter)
    return vae


def _codes(vae, images):
    """Every code for every image, (M, B, N)."""
    codes = all_codes(vae.num_latents, vae.num_categories)
    return codes.unsqueeze(1).expand(-1, len(images), -1)


def _given(vae, images, codes):
    """The logits of q(z|x) at given codes, (M, B, N, K)."""
    return vae.draw(vae.encode(images), lambda place, logits: codes[..., place])[0]


def _log_q(vae, images, codes):
    """log q(z|x) in nats, (M, B)."""
    log_q = _given(vae, images, codes).log_softmax(-1).expand(*codes.shape, -1)
    return log_q.gather(-1, codes.unsqueeze(-1)).squeeze(-1).sum(-1)


def _log_weights(vae, images):
    """log w and log q of every code, (M, B)."""
    codes = _codes(vae, images)
    weights = log_importance_weights(vae, images, _given(vae, images, codes), codes)
    return weights, _log_q(vae, images, codes)


def _elbo(vae, images):
    """The ELBO as an expectation over all codes, (B,)."""
    log_weights, log_q = _log_weights(vae, images)
    return (log_q.exp() * log_weights).sum(0)


@torch.no_grad()
def test_probabilities_sum_to_one(vae, images):
    log_q = _log_q(vae, images, _codes(vae, images))
    assert torch.allclose(log_q.logsumexp(0), torch.zeros(3).double(), atol=1e-12)
    log_p = vae.prior.log_prob(all_codes(vae.num_latents, vae.num_categories))
    assert log_p.logsumexp(0).abs() < 1e-12


@torch.no_grad()
def test_groups_depend_on_each_other(vae, images):
    """Control: neither posterior nor prior of the examples is a product over latents."""
    codes = _codes(vae, images)
    logits = _given(vae, images, codes)
    assert logits.std(0).max() > 0.1
    last = logits[..., vae.encoder.places[0], :]
    assert last.std(0).max() < 1e-12, "the first group is drawn without any code"


@torch.no_grad()
def test_draws_follow_the_posterior(vae, images):
    n = 20_000
    noise = -torch.empty(n, 3, vae.num_latents, vae.num_categories, dtype=torch.float64)
    noise = -noise.exponential_(generator=torch.Generator().manual_seed(0)).log()
    logits, codes = vae.draw_codes(vae.encode(images), noise)
    assert logits.shape == (n, 3, vae.num_latents, vae.num_categories)
    place = (codes * vae.num_categories ** torch.arange(vae.num_latents).flip(0)).sum(-1)
    p = _log_q(vae, images, _codes(vae, images)).exp()
    for image in range(3):
        counts = torch.bincount(place[:, image], minlength=len(p))
        deviations = (counts - n * p[:, image]) / (n * p[:, image] * (1 - p[:, image])).sqrt()
        # At most 256 codes, most of them rare: a false alarm about once in 1,000 seeds.
        assert deviations[n * p[:, image] > 5].abs().max() < 5


@torch.no_grad()
def test_rate_is_the_expected_log_ratio(vae, images):
    codes = _codes(vae, images)
    log_q, log_p = _log_q(vae, images, codes), vae.prior.log_prob(codes)
    z = one_hot(codes, vae.num_categories, torch.float64)
    kl = vae.kl(_given(vae, images, codes), z)
    assert kl.shape[-1] == vae.num_latents
    expected = (log_q.exp() * (log_q - log_p)).sum(0)
    assert torch.allclose((log_q.exp() * kl.sum(-1)).sum(0), expected)


@torch.no_grad()
def test_order_of_the_bounds(vae, images):
    exact = exact_log_likelihood(Enumeration.of(vae), images)
    log_weights, log_q = _log_weights(vae, images)
    assert torch.allclose(log_weights.add(log_q).logsumexp(0), exact)
    elbo = _elbo(vae, images)
    assert (elbo < exact - 0.01).all(), "the example should have a gap to close"
    previous, features = elbo, vae.encode(images)
    for m in (10, 1000):
        bounds = [
            sampled_bound(vae, images, features, ImageStreams(torch.arange(3), seed), m)
            for seed in range(20)
        ]
        bound, error = torch.stack(bounds).mean(0), torch.stack(bounds).std(0) / math.sqrt(20)
        assert (previous < bound).all()
        assert (bound < exact + 4.5 * error).all()
        previous = bound
    assert (exact - previous < 0.2 * (exact - elbo) + 4.5 * error).all()


@torch.no_grad()
def test_bound_depends_on_neither_chunks_nor_batches(vae, images):
    def bound(rows, max_decodes):
        streams = ImageStreams(torch.arange(3)[rows], 3)
        features = vae.encode(images[rows])
        return sampled_bound(vae, images[rows], features, streams, 20, max_decodes)

    whole = bound(slice(None), 4096)
    assert torch.allclose(bound(slice(None), 7), whole)
    assert torch.allclose(torch.cat([bound(slice(0, 1), 7), bound(slice(1, 3), 100)]), whole)


def _gradient(loss, vae):
    parameters = [p for p in vae.parameters() if p.requires_grad]
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    return torch.cat([g.flatten() for g in found if g is not None])


def _with(vae, estimator, temperature=1.0):
    vae.layer = CategoricalLayer(temperature, estimator).double()
    return vae


def test_exact_estimator_has_the_gradient_of_the_elbo(vae, images):
    expected = -_elbo(vae, images).mean()
    loss, distortion, rate = ELBO(1, None).training_pass(_with(vae, Exact()), images, _one())
    assert torch.allclose(loss, expected)
    assert torch.allclose(distortion + rate, expected)
    assert torch.allclose(_gradient(loss, vae), _gradient(expected, vae))


def _one():
    return torch.tensor(1.0, dtype=torch.float64)


def _assert_unbiased(estimate, exact, count):
    """The mean of gradients in a few fixed directions is the exact one."""
    generator = torch.Generator().manual_seed(5)
    directions = torch.randn(exact.numel(), 8, generator=generator, dtype=torch.float64)
    found = torch.stack([estimate() @ directions for _ in range(count)])
    error = found.std(0) / math.sqrt(count)
    deviations = (found.mean(0) - exact @ directions) / error
    # Of 8 directions: a false alarm once in 1,000 seeds.
    assert deviations.abs().max() < 4.2
    # Control: the first half of the latents scored alone would be found out.
    assert (exact @ directions / error).abs().max() > 10


def test_score_functions_are_unbiased(vae, images):
    exact = _gradient(-_elbo(vae, images).mean(), vae)
    _with(vae, RLOO(200))
    torch.manual_seed(2)
    _assert_unbiased(
        lambda: _gradient(ELBO(1, None).training_pass(vae, images, _one())[0], vae), exact, 60
    )


def test_vimco_has_the_gradient_of_its_bound(vae, images):
    log_weights, log_q = _log_weights(vae, images)
    pairs = torch.stack(torch.broadcast_tensors(log_weights[:, None], log_weights[None]))
    q = (log_q[:, None] + log_q[None]).exp()
    exact = -(q * importance_weighted_bound(pairs)).sum((0, 1)).mean()
    _with(vae, Reinforce(None))
    torch.manual_seed(3)
    many = images.repeat_interleave(100, 0)
    _assert_unbiased(
        lambda: _gradient(VIMCO(2, None).training_pass(vae, many, _one())[0], vae),
        _gradient(exact, vae),
        60,
    )


def test_gradients_pass_through_the_codes_of_other_groups(vae, images):
    """Of a relaxed sample: the last group's logits depend on those of the first."""
    _with(vae, GumbelSoftmaxEstimator())
    features = vae.encode(images)
    sample = vae.sample(features, 4)
    assert sample.z.shape == sample.logits.shape == (4, 3, vae.num_latents, vae.num_categories)
    assert sample.log_z.shape == sample.z.shape
    first = features[0] if isinstance(features, tuple) else features
    last = sample.logits[..., vae.encoder.places[-1], :]
    [gradient] = torch.autograd.grad(last.square().sum(), first)
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize("m", [1, 3])
def test_relaxed_densities_of_a_hierarchy(vae, images, m):
    """Conditional densities at the relaxed codes add up, for posterior and prior."""
    _with(vae, GumbelSoftmaxEstimator(), 0.7)
    loss, *_ = ELBO(m, 0.5).training_pass(vae, images, _one())
    assert loss.isfinite()
    assert _gradient(loss, vae).isfinite().all()
