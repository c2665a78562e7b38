"""Objectives against enumeration, in float64."""

import math

import pytest
import torch

from dvae.distributions import all_codes
from dvae.estimators import ESTIMATORS
from dvae.estimators.score_function import Reinforce
from dvae.layers import CategoricalLayer
from dvae.models import OBJECTIVES
from dvae.models.bounds import Enumeration, exact_log_likelihood, log_importance_weights
from dvae.models.objectives import ELBO, IWAE, VIMCO
from dvae.networks.base import Encoder


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(1)
    return (torch.rand(2, 1, 28, 28, generator=generator) < 0.3).double()


@pytest.fixture
def vae(small_vae):
    with torch.no_grad():
        small_vae.decoder.head.weight *= 0.2
        small_vae.encoder.head.weight *= 0.2
    return small_vae


def _with(vae, estimator, temperature=1.0):
    vae.layer = CategoricalLayer(temperature, estimator).double()
    return vae


def _gradient(loss, vae):
    parameters = [vae.encoder.head.bias, vae.prior.logits, vae.output_bias]
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)])


def _log_weights(vae, images):
    """log w and log q of every code, (64, B)."""
    logits = vae.encode(images)
    codes = all_codes(3, 4).unsqueeze(1).expand(-1, len(images), -1)
    log_q = logits.log_softmax(-1).expand(*codes.shape, -1)
    log_q = log_q.gather(-1, codes.unsqueeze(-1)).squeeze(-1).sum(-1)
    return log_importance_weights(vae, images, logits, codes), log_q


def test_elbo_with_exact_gradients_is_the_expectation(vae, images):
    log_w, log_q = _log_weights(vae, images)
    expected = -(log_q.exp() * log_w).sum(0).mean()
    _with(vae, "exact")
    loss = ELBO(1, None)(vae, vae(images), 1.0)
    assert torch.allclose(loss, expected)
    assert torch.allclose(_gradient(loss, vae), _gradient(expected, vae))


def test_beta_weights_only_the_rate(vae, images):
    _with(vae, "exact")
    output = vae(images)
    values = [ELBO(1, None)(vae, output, beta).item() for beta in (0.0, 0.5, 1.0)]
    assert values[2] - values[0] == pytest.approx(output.rate.mean().item())
    assert values[1] == pytest.approx((values[0] + values[2]) / 2)


@pytest.mark.parametrize("name", ["gumbel_softmax", "st_gumbel_softmax", "rloo", "reinforce"])
def test_several_samples_are_averaged(vae, images, name):
    _with(vae, name)
    output = vae(images, 7)
    assert output.distortion.shape[-2:] == (7, 2)
    assert output.rate.shape == (2,)
    loss = ELBO(7, None)(vae, output, 1.0)
    assert loss.item() == pytest.approx((output.distortion.mean() + output.rate.mean()).item())


def _exact_iwae(vae, images, m=2):
    """E[log mean w] over all pairs of codes."""
    log_w, log_q = _log_weights(vae, images)
    bound = torch.logaddexp(log_w.unsqueeze(0), log_w.unsqueeze(1)) - math.log(m)
    return ((log_q.unsqueeze(0) + log_q.unsqueeze(1)).exp() * bound).sum((0, 1)).mean()


def _estimates(vae, objective, images, n=200, repeats=40):
    """Losses and gradients of many batches in which the images are repeated."""
    losses, gradients = [], []
    for seed in range(repeats):
        torch.manual_seed(seed)
        loss = objective(vae, vae(images.repeat(n, 1, 1, 1), objective.num_samples), 1.0)
        losses.append(loss.detach())
        gradients.append(_gradient(loss, vae))
    return torch.stack(losses), torch.stack(gradients)


def test_vimco_and_iwae_have_the_value_of_the_bound_and_vimco_its_gradient(vae, images):
    expected = -_exact_iwae(vae, images)
    exact_gradient = _gradient(expected, vae)
    for objective, estimator in (
        (VIMCO(2, None), Reinforce(None)),
        (IWAE(2, None), "st_gumbel_softmax"),
    ):
        losses, gradients = _estimates(_with(vae, estimator), objective, images)
        error = losses.std() / math.sqrt(len(losses))
        assert abs(losses.mean() - expected) < 4 * error
        if isinstance(objective, VIMCO):
            errors = gradients.std(0) / math.sqrt(len(gradients))
            z = (gradients.mean(0) - exact_gradient) / (errors + 1e-12)
            # 808 coordinates: |z| < 5.5 with 39 degrees of freedom.
            assert z.abs().max() < 5.5
            # Control: the gradient of the ELBO fails.
            elbo = _gradient(ELBO(1, None)(_with(vae, "exact"), vae(images), 1.0), vae)
            assert ((gradients.mean(0) - elbo) / (errors + 1e-12)).abs().max() > 5.5


def test_vimco_leaves_each_draw_out_of_its_own_baseline():
    log_weights = torch.tensor([[0.0], [2.0], [-1.0]], dtype=torch.float64)
    baseline = VIMCO._without_each(log_weights)
    for s in range(3):
        swapped = log_weights.clone()
        swapped[s] = (log_weights.sum() - log_weights[s]) / 2
        expected = swapped.logsumexp(0) - math.log(3)
        assert torch.allclose(baseline[s], expected)


def test_relaxed_kl_bounds_the_likelihood_of_the_relaxed_model(vae, images):
    """It is 0 if posterior and prior agree, with their temperatures, and positive otherwise."""
    _with(vae, "gumbel_softmax", temperature=0.7)
    objective = ELBO(1, 0.7)
    with torch.no_grad():
        vae.encoder.head.weight.zero_()
        vae.encoder.head.bias.copy_(vae.prior.logits.flatten())
    output = vae(images)
    assert objective._sampled_rate(vae, output).abs().max() < 1e-6
    with torch.no_grad():
        vae.encoder.head.bias += torch.linspace(-2, 2, 12)
    rates = objective._sampled_rate(vae, vae(images.repeat(2000, 1, 1, 1)))
    assert rates.mean() > 4 * rates.std() / math.sqrt(len(rates))
    # The code is a function of the relaxed sample, so that its divergence is smaller.
    assert rates.mean() > vae(images).rate.mean()


def test_relaxed_kl_needs_relaxed_samples(vae, images):
    _with(vae, "st_gumbel_softmax")
    with pytest.raises(ValueError, match="expected an estimator with relaxed samples"):
        ELBO(1, 0.5)(vae, vae(images), 1.0)


@pytest.mark.parametrize("name", list(OBJECTIVES))
def test_impossible_options_are_refused(name):
    for options, message in (
        ({"num_samples": 0}, "num_samples"),
        ({"num_samples": 3, "kl": "x"}, "'discrete' or 'relaxed'"),
        ({"num_samples": 3, "kl": "relaxed"}, "objective.prior_temperature: expected a number"),
        ({"prior_temperature": 0.5}, "objective.prior_temperature: expected null"),
    ):
        with pytest.raises(ValueError, match=message):
            OBJECTIVES[name](**options)


def test_bound_stays_below_the_likelihood(vae, images):
    exact = exact_log_likelihood(Enumeration.of(vae), images).mean()
    assert _exact_iwae(vae, images) < exact


class _Masked(Encoder):
    """An encoder whose logits exclude some categories: another one for each latent and image."""

    def __init__(self, encoder, mask):
        super().__init__()
        self.encoder = encoder
        self.head = encoder.head
        self.mask = mask

    def forward(self, images):
        return self.encoder(images).masked_fill(self.mask, -torch.inf)


MASKED = [("elbo", name, {}) for name in sorted(ESTIMATORS)] + [
    ("iwae", "gumbel_softmax", {}),
    ("iwae", "reinmax", {}),
    ("elbo", "gumbel_softmax", {"prior_temperature": 0.5}),
    ("iwae", "gumbel_softmax", {"prior_temperature": 0.5}),
    ("vimco", "reinforce", {}),
]


@pytest.mark.parametrize(("objective", "estimator", "options"), MASKED)
def test_models_with_masked_categories_train(vae, images, objective, estimator, options):
    mask = torch.zeros(2, 3, 4, dtype=torch.bool)
    mask[0, 0, 1] = mask[1, :, 2] = mask[:, 2, :3] = True
    vae.encoder = _Masked(vae.encoder, mask)
    _with(vae, estimator, 0.5)
    num_samples = 1 if objective == "elbo" else 3
    options = {"prior_temperature": None, **options}
    make = {"elbo": ELBO, "iwae": IWAE, "vimco": VIMCO}[objective]
    terms = make(num_samples, **options).training_pass(vae, images, torch.tensor(1.0))
    assert torch.stack(terms).isfinite().all()
    gradient = _gradient(terms[0], vae)
    assert gradient.isfinite().all()
    assert gradient.abs().sum() > 0
