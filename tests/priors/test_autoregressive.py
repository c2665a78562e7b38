"""Autoregressive priors against enumeration, in float64, and in the objectives of a VAE."""

import itertools
import math
from dataclasses import replace

import pytest
import torch

from dvae.distributions import all_codes, categorical_kl, gumbel_noise, one_hot
from dvae.errors import UserError
from dvae.estimators import ESTIMATORS
from dvae.layers import CategoricalLayer
from dvae.models import OBJECTIVES
from dvae.models.bounds import (
    Enumeration,
    exact_log_likelihood,
    log_importance_weights,
    sampled_bound,
)
from dvae.models.objectives import ELBO, IWAE
from dvae.priors import PRIORS
from dvae.priors.autoregressive import MaskedMLPPrior, TransformerPrior
from dvae.randomness import ImageStreams

NETWORKS = ["mlp", "transformer"]
K = 3


def _build(network, grid=(2, 2), num_categories=K, **options):
    """A float64 prior in evaluation mode, far from its start."""
    options = {"network": network, "width": 16, "blocks": 2, "num_classes": 2} | options
    prior = PRIORS["autoregressive"](**options).build(grid, num_categories).double().eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in prior.parameters():
        torch.nn.init.normal_(parameter, std=0.5, generator=generator)
    return prior


@pytest.fixture(params=NETWORKS)
def network(request):
    return request.param


@pytest.fixture
def prior(network):
    return _build(network)


def _contexts():
    return [None, torch.zeros(1, 2).double(), torch.eye(2).double()[1:]]


def test_auto_takes_the_network_that_fits_the_grid():
    options = PRIORS["autoregressive"](width=16)
    assert isinstance(options.build((4,), K), MaskedMLPPrior)
    assert isinstance(options.build((2, 2), K), TransformerPrior)
    # Only the transformer has heads.
    odd = PRIORS["autoregressive"](width=10)
    odd.check_grid((4,))
    assert isinstance(odd.build((4,), K), MaskedMLPPrior)
    with pytest.raises(ValueError, match="prior.heads: expected a divisor of the width 10"):
        odd.check_grid((2, 2))


@pytest.mark.parametrize("context", _contexts(), ids=["none", "zeros", "class"])
def test_probabilities_sum_to_one(prior, context):
    log_p = prior.log_prob(all_codes(4, K), context)
    assert log_p.logsumexp(0).item() == pytest.approx(0, abs=1e-12)
    # Control: they are not those of a product of categoricals.
    marginals = [
        torch.stack([log_p[all_codes(4, K)[:, n] == k].logsumexp(0) for k in range(K)])
        for n in range(4)
    ]
    product = sum(m[all_codes(4, K)[:, n]] for n, m in enumerate(marginals))
    assert (product - log_p).abs().max() > 0.1


def test_training_starts_at_the_uniform_prior(network):
    prior = PRIORS["autoregressive"](network=network, num_classes=2).build((2, 2), K)
    log_p = prior.log_prob(all_codes(4, K), torch.eye(2)[:1])
    assert torch.allclose(log_p, torch.tensor(-4 * math.log(K)))


def test_logits_have_no_gradient_from_the_own_and_later_latents(prior):
    """Nor has dropout, in training mode, for relaxed codes and with a context."""
    z = torch.rand(5, 2, 4, K).double().requires_grad_()
    logits = prior.train().conditional_logits(z, torch.rand(2, 2).double())
    for n in range(4):
        (gradient,) = torch.autograd.grad(logits[..., n, :].square().sum(), z, retain_graph=True)
        assert not gradient[..., n:, :].any()
        assert all(gradient[..., m, :].any() for m in range(n))


def test_a_context_belongs_to_its_image(prior):
    """(B, C) beside draws (S, B, N, K), and codes (S, B, N)."""
    codes = torch.randint(K, (5, 2, 4))
    z, context = one_hot(codes, K, torch.float64), torch.eye(2).double()
    both = prior.conditional_logits(z, context)
    each = [prior.conditional_logits(z[:, b : b + 1], context[b : b + 1]) for b in range(2)]
    assert torch.allclose(both, torch.cat(each, 1))
    assert not torch.allclose(both, prior.conditional_logits(z))
    # The first latent, too, which sees no other.
    assert not torch.allclose(both[:, 0, 0], both[:, 1, 0])
    log_p = prior.log_prob(codes, context)
    assert log_p.shape == (5, 2)
    alone = torch.stack([prior.log_prob(codes[:, b], context[b : b + 1]) for b in range(2)], 1)
    assert torch.allclose(log_p, alone)


def test_scores_of_many_codes_are_computed_in_parts(prior, monkeypatch):
    codes, context = torch.randint(K, (9, 2, 4)), torch.eye(2).double()
    whole = prior.log_prob(codes, context)
    monkeypatch.setattr("dvae.priors.base._MAX_LOGITS", 5 * 4 * K)
    assert torch.allclose(prior.log_prob(codes, context), whole)


@pytest.mark.parametrize("context", _contexts(), ids=["none", "zeros", "class"])
def test_samples_are_those_of_one_full_pass_for_each_latent(prior, context):
    """What is kept between the passes changes no code, given the same noise."""

    def generator():
        return torch.Generator().manual_seed(3)

    numbers = []
    kept = prior.sample(200, context, generator(), track=lambda n: numbers.append(n) or n)
    assert numbers == [range(4)]
    source, codes = generator(), torch.zeros(200, 4, dtype=torch.int64)
    for n in range(4):
        logits = prior.conditional_logits(one_hot(codes, K, torch.float64), context)[:, n]
        noise = gumbel_noise(logits.shape, dtype=logits.dtype, generator=source)
        codes[:, n] = (logits + noise).argmax(-1)
    assert torch.equal(kept, codes)
    assert torch.equal(kept, prior.sample(200, context, generator()))
    first = codes[:, :2]
    assert torch.equal(prior.sample(200, context, generator(), first=first)[:, :2], first)


def test_logits_are_precise_under_autocast(network):
    prior = _build(network, dropout=0.0).float()
    z = one_hot(torch.randint(K, (7, 4)), K)
    expected = prior.conditional_logits(z)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = prior.conditional_logits(z)
    assert logits.dtype == torch.float32
    assert torch.allclose(logits, expected, atol=0.5)


# As a part of a VAE.


@pytest.fixture
def vae(small_vae, network):
    """3 × 4 codes, float64."""
    small_vae.prior = _build(network, (3,), 4, num_classes=0)
    with torch.no_grad():
        small_vae.decoder.head.weight *= 0.2
        small_vae.encoder.head.weight *= 0.2
    return small_vae


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(1)
    return (torch.rand(2, 1, 28, 28, generator=generator) < 0.3).double()


def _parameters(vae):
    return [vae.encoder.head.bias, *vae.prior.parameters()]


def _gradient(loss, vae):
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, _parameters(vae))])


def _enumerated_rate(vae, images, *, score=True):
    """Σ_z q(z|x) Σ_n KL(q_n ‖ p_n(·|z_<n)), (B,), by a loop over codes.

    Without the score, the gradient of the first q(z|x) is missing: the effect of a latent on the
    prior of those after it.
    """
    logits, total = vae.encode(images), 0.0
    for code in itertools.product(range(4), repeat=3):
        z = one_hot(torch.tensor(code), 4, torch.float64)
        q = sum(logits.log_softmax(-1)[:, n, k] for n, k in enumerate(code)).exp()
        rate = categorical_kl(logits, vae.prior.conditional_logits(z)).sum(-1)
        total += (q if score else q.detach()) * rate
    return total


def test_the_rate_is_the_divergence_of_the_whole_code(vae, images):
    logits, codes = vae.encode(images), all_codes(3, 4)
    log_q = logits.log_softmax(-1).unsqueeze(0).expand(64, -1, -1, -1)
    log_q = log_q.gather(-1, codes[:, None, :, None].expand(-1, 2, -1, -1)).sum((-1, -2))
    divergence = (log_q.exp() * (log_q - vae.prior.log_prob(codes).unsqueeze(-1))).sum(0)
    assert torch.allclose(_enumerated_rate(vae, images), divergence)


def test_the_prior_sees_discrete_codes_beside_a_relaxed_decoder(vae, images):
    """The rate is then that of the discrete model, and z still has its gradient."""
    vae.layer = CategoricalLayer(0.7, "gumbel_softmax").double()
    output = vae(images)
    assert output.sample.z.max() < 1
    hot = one_hot(output.sample.codes, 4, torch.float64)
    assert torch.allclose(output.rate, vae.rate(output.sample.logits, hot))
    z = output.sample.z.detach().requires_grad_()
    sample = replace(output.sample, z=z)
    (gradient,) = torch.autograd.grad(vae.rate(sample.logits, sample.hard_z).sum(), z)
    assert gradient[..., :-1, :].any(-1).all()


def test_the_exact_estimator_has_the_gradient_of_the_enumerated_rate(vae, images):
    vae.layer = CategoricalLayer(1.0, "exact").double()
    expected = _enumerated_rate(vae, images).mean()
    output = vae(images)
    rate = ELBO(1, None)(vae, output, 1.0) - ELBO(1, None)(vae, output, 0.0)
    assert torch.allclose(rate, expected)
    output = vae(images)
    rate = ELBO(1, None)(vae, output, 1.0) - ELBO(1, None)(vae, output, 0.0)
    assert torch.allclose(_gradient(rate, vae), _gradient(expected, vae), atol=1e-10)


@pytest.mark.parametrize("weight", [0.0, 0.3])
def test_the_weight_of_the_prior_mixes_its_rate_with_the_uniform_one(vae, images, weight):
    """In the loss and its gradient; the reported rate is that of the prior alone."""
    vae.layer = CategoricalLayer(1.0, "exact").double()
    uniform = categorical_kl(vae.encode(images), torch.zeros(4).double()).sum(-1).mean()
    rate = _enumerated_rate(vae, images).mean()
    given = torch.tensor(weight).double()
    terms = [
        ELBO(1, None).training_pass(vae, images, torch.tensor(beta).double(), given)
        for beta in (1.0, 0.0)
    ]
    loss, expected = terms[0][0] - terms[1][0], weight * rate + (1 - weight) * uniform
    assert torch.allclose(loss, expected)
    assert torch.allclose(terms[0][2], rate)
    assert torch.allclose(_gradient(loss, vae), _gradient(expected, vae), atol=1e-10)


def test_the_weight_of_the_prior_rises_where_the_objective_can_mix(make_config):
    def curve(*overrides):
        schedule = make_config("prior=autoregressive", *overrides).prior_weight_schedule(100)
        if schedule is None:
            return None
        return [round(schedule(step), 3) for step in (0, 50, 70, 85, 100)]

    assert curve("prior.delay=0.7") == [0.01, 0.01, 0.01, 0.505, 1]
    assert curve("prior.delay=0.5") == curve("prior.delay=50") == [0.01, 0.01, 0.406, 0.703, 1]
    assert curve() == curve("prior.delay=0.5")
    assert curve("prior.delay=1.0") == curve("prior.delay=500") == [0.01] * 5
    assert curve("prior.delay=0") is None
    assert curve("objective=iwae") is None
    assert curve("model.levels=2") is curve("model.groups=2") is None
    assert curve("model.levels=2", "prior.delay=0.7") == curve("prior.delay=0.7")
    assert make_config().prior_weight_schedule(100) is None
    with pytest.raises(UserError, match=r"prior.delay: expected null or 0 unless objective=elbo"):
        curve("objective=iwae", "prior.delay=0.5")


@pytest.mark.parametrize(
    ("name", "draws"),
    [("rloo", 1), ("reinforce", 1), ("gumbel_softmax", 4), ("st_gumbel_softmax", 2)],
)
def test_the_gradient_of_a_drawn_rate_has_no_bias(vae, images, name, draws):
    """Score functions have none; nor has any other estimator, if there are several draws."""
    vae.layer = CategoricalLayer(1.0, name).double()
    expected = _gradient(_enumerated_rate(vae, images).mean(), vae)
    gradients = []
    for seed in range(40):
        torch.manual_seed(seed)
        output = vae(images.repeat(50, 1, 1, 1), draws)
        # The cost of the decoder would only add noise.
        surrogate = vae.layer.estimator.surrogate(output.rate, output.sample)
        gradients.append(_gradient(surrogate, vae))
    gradients = torch.stack(gradients)
    encoder = slice(0, vae.encoder.head.bias.numel())
    errors = gradients.std(0) / math.sqrt(len(gradients))
    z = ((gradients.mean(0) - expected) / (errors + 1e-12))[encoder]
    # 12 coordinates with 39 degrees of freedom: a false alarm once in 300 seeds.
    assert z.abs().max() < 4
    # Control: without the score.
    direct = _gradient(_enumerated_rate(vae, images, score=False).mean(), vae)
    assert ((gradients.mean(0) - direct) / (errors + 1e-12))[encoder].abs().max() > 4


def test_the_value_of_a_drawn_rate_is_that_of_its_codes(vae, images):
    vae.layer = CategoricalLayer(0.7, "gumbel_softmax").double()
    output = vae(images, 3)
    hot = one_hot(output.sample.codes, 4, torch.float64)
    assert torch.equal(output.rate, vae.rate(vae.encode(images), hot))
    log_weights = IWAE(3, None)._sampled_rate(vae, output)
    log_q = output.sample.logits.log_softmax(-1)
    log_q = log_q.gather(-1, output.sample.codes.unsqueeze(-1)).squeeze(-1).sum(-1)
    assert torch.allclose(log_weights, log_q - vae.prior.log_prob(output.sample.codes))


@torch.no_grad()
def test_exact_likelihood_and_bounds_are_in_order(vae, images):
    exact = exact_log_likelihood(Enumeration.of(vae), images)
    logits, codes = vae.encode(images), all_codes(3, 4)
    log_w = log_importance_weights(vae, images, logits, codes.unsqueeze(1).expand(-1, 2, -1))
    # By the definition, code by code.
    joint = [
        vae.likelihood.log_prob(images, vae.decode_codes(code)) + vae.prior.log_prob(code)
        for code in codes
    ]
    assert torch.allclose(torch.stack(joint).logsumexp(0), exact)
    q = (torch.stack(joint) - log_w).exp()
    assert torch.allclose(q.sum(0), torch.ones(2).double())
    elbo = (q * log_w).sum(0)
    vae.layer = CategoricalLayer(1.0, "exact").double()
    assert torch.allclose(-ELBO(1, None)(vae, vae(images), 1.0), elbo.mean())
    # The bound with two samples, over all pairs of codes.
    two = torch.logaddexp(log_w.unsqueeze(0), log_w.unsqueeze(1)) - math.log(2)
    two = (q.unsqueeze(0) * q.unsqueeze(1) * two).sum((0, 1))
    assert (elbo < two).all()
    assert (two < exact).all()
    streams = [ImageStreams(torch.arange(2), seed) for seed in range(40)]
    for m, expected in ((2, two), (200, exact)):
        bounds = torch.stack([sampled_bound(vae, images, logits, s, m) for s in streams])
        error = bounds.std(0) / math.sqrt(len(streams))
        # Four values with 39 degrees of freedom: a false alarm once in 800 seeds.
        assert ((bounds.mean(0) - expected) / error).abs().max() < 4
        # The bias with 200 samples is far smaller than the gap of the ELBO.
        assert m == 2 or (error < 0.2 * (exact - elbo)).all()


CASES = [("elbo", name) for name in sorted(ESTIMATORS)] + [
    ("iwae", "gumbel_softmax"),
    ("iwae", "reinmax"),
    ("vimco", "reinforce"),
]


@pytest.mark.parametrize(("objective", "estimator"), CASES)
def test_every_estimator_trains_two_steps(vae, images, objective, estimator):
    torch.manual_seed(0)
    vae.train().layer = CategoricalLayer(0.7, estimator).double()
    made = OBJECTIVES[objective](num_samples=1 if objective == "elbo" else 3).build()
    optimizer = torch.optim.Adam(vae.parameters(), 1e-2)
    for _ in range(2):
        before = [parameter.detach().clone() for parameter in vae.prior.parameters()]
        optimizer.zero_grad()
        terms = made.training_pass(vae, images, torch.tensor(1.0))
        terms[0].backward()
        optimizer.step()
        assert torch.stack(terms).isfinite().all()
        for old, new in zip(before, vae.prior.parameters(), strict=True):
            assert new.isfinite().all()
            assert (new != old).any()
