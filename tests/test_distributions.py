import math

import pytest
import torch
from torch.autograd import gradcheck

from dvae import distributions
from dvae.distributions import (
    categorical_entropy,
    categorical_kl,
    concrete_log_prob,
    concrete_sample,
    gumbel_from_uniform,
    gumbel_noise,
    one_hot,
    sample_categorical,
)

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_gumbel_noise_is_finite_at_both_ends_of_the_generator(monkeypatch, dtype, value):
    def ends(shape, **options):
        return torch.full(shape, value, dtype=options["dtype"])

    monkeypatch.setattr(distributions.torch, "rand", ends)
    noise = gumbel_noise((3, 4), dtype=dtype)
    assert noise.dtype == dtype
    assert noise.isfinite().all()


def test_gumbel_noise_has_the_moments_of_a_standard_gumbel():
    n = 200_000
    noise = gumbel_noise((n,), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    variance = math.pi**2 / 6
    assert abs(noise.mean() - 0.5772156649) < 4 * math.sqrt(variance / n)
    # The kurtosis of a Gumbel is 5.4: var(s²) ≈ (kurtosis − 1) σ⁴ / n.
    assert abs(noise.var() - variance) < 4 * variance * math.sqrt(4.4 / n)


def test_gumbel_noise_is_reproducible_by_its_generator():
    draws = [gumbel_noise((5,), generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_half_precision_noise_is_drawn_in_single_precision():
    # Drawn in float16, every thousandth uniform number would be 0 or 1.
    noise = gumbel_noise((100_000,), dtype=torch.float16)
    assert noise.float().unique().numel() > 2_000


def test_one_hot_is_exact():
    z = one_hot(torch.tensor([[2, 0]]), 3)
    assert z.tolist() == [[[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]]


def test_kl_to_uniform_is_between_0_and_ln_k():
    k = 10
    prior = torch.zeros(k, dtype=torch.float64)
    flat = torch.full((7, k), 3.0, dtype=torch.float64)
    saturated = 1e4 * torch.eye(k, dtype=torch.float64)
    spread = torch.randn(1000, k, dtype=torch.float64) * 5
    assert categorical_kl(flat, prior).abs().max() < 1e-12
    assert torch.allclose(categorical_kl(saturated, prior), torch.tensor(math.log(k)).double())
    kl = categorical_kl(spread, prior)
    assert (kl >= 0).all()
    assert (kl <= math.log(k)).all()


def test_kl_equals_that_of_torch():
    q, p = torch.randn(2, 50, 6, dtype=torch.float64)
    expected = torch.distributions.kl_divergence(
        torch.distributions.Categorical(logits=q), torch.distributions.Categorical(logits=p)
    )
    assert torch.allclose(categorical_kl(q, p), expected)
    # The KL to a uniform prior is ln K − H(q).
    assert torch.allclose(
        categorical_kl(q, torch.zeros_like(q)), math.log(6) - categorical_entropy(q)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_kl_is_finite_at_extreme_logits(dtype):
    logits = torch.tensor([[1e4, -1e4, 0.0], [-1e4, -1e4, 1e4]], dtype=dtype, requires_grad=True)
    kl = categorical_kl(logits, torch.zeros(3, dtype=dtype))
    kl.sum().backward()
    assert kl.isfinite().all()
    assert logits.grad.isfinite().all()


def test_kl_gradient():
    q = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    p = torch.randn(5, dtype=torch.float64, requires_grad=True)
    assert gradcheck(categorical_kl, (q, p))


def _z_scores(codes, probs):
    counts = torch.bincount(codes.flatten(), minlength=len(probs)).double()
    n = codes.numel()
    return (counts - n * probs) / (n * probs * (1 - probs)).sqrt()


def test_inversion_has_the_right_frequencies():
    logits = torch.tensor([1.0, -1.0, 0.5, 2.0], dtype=torch.float64)
    uniform = torch.rand(100_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    # Four categories, |z| < 4.5: a false alarm once in 30,000 seeds.
    assert _z_scores(sample_categorical(logits, uniform), logits.softmax(-1)).abs().max() < 4.5
    wrong = sample_categorical(1.1 * logits, uniform)
    assert _z_scores(wrong, logits.softmax(-1)).abs().max() > 4.5


def test_inversion_at_the_ends_of_the_interval():
    logits = torch.tensor([-1e4, 0.0, 0.0, -1e4])
    ends = torch.tensor([0.0, 1 - 2**-24])
    assert sample_categorical(logits, ends).tolist() == [1, 2]


@pytest.mark.parametrize("shape", [(5, 7, 2), (7, 2), (3, 5, 7, 2)])
def test_inversion_by_search_finds_the_codes_of_comparisons(monkeypatch, shape):
    torch.manual_seed(0)
    logits, uniform = 3 * torch.randn(7, 2, 200), torch.rand(shape)
    found = sample_categorical(logits, uniform)
    monkeypatch.setattr(distributions, "_MANY", 200)
    assert torch.equal(found, sample_categorical(logits, uniform))
    assert found.shape == shape
    # Numbers that are shared by several rows of logits.
    shared = torch.rand(5, 1, 1)
    expected = sample_categorical(logits, shared)
    monkeypatch.undo()
    assert torch.equal(sample_categorical(logits, shared), expected)


def test_concrete_sample_is_a_log_softmax():
    logits, noise = torch.randn(2, 4, 5, dtype=torch.float64)
    z = concrete_sample(logits, 0.7, noise).exp()
    assert torch.allclose(z, ((logits + noise) / 0.7).softmax(-1))


def test_concrete_density_integrates_to_one():
    # K = 2: the density of z₁ on (0, 1), with the Jacobian of the logarithm put back.
    logits = torch.tensor([0.3, -0.6], dtype=torch.float64)
    z = torch.linspace(1e-6, 1 - 1e-6, 200_001, dtype=torch.float64)
    log_z = torch.stack([z, 1 - z], -1).log()
    density = (concrete_log_prob(log_z, logits, 0.8) - log_z.sum(-1)).exp()
    assert abs(torch.trapezoid(density, z) - 1) < 1e-3


def test_concrete_density_matches_torch():
    for k, temperature in [(3, 0.5), (8, 1.5)]:
        logits = torch.randn(20, k, dtype=torch.float64)
        log_z = concrete_sample(logits, temperature, gumbel_noise((20, k), dtype=torch.float64))
        reference = torch.distributions.RelaxedOneHotCategorical(
            torch.tensor(temperature), logits=logits
        )
        expected = reference.log_prob(log_z.exp()) + log_z.sum(-1)
        assert torch.allclose(concrete_log_prob(log_z, logits, temperature), expected)


def test_concrete_density_is_finite_at_low_temperatures():
    logits = torch.randn(100, 10)
    log_z = concrete_sample(logits, 0.05, gumbel_noise((100, 10)))
    assert (log_z.exp() == 0).any(), "the naive form would take the logarithm of zero"
    assert concrete_log_prob(log_z, logits, 0.05).isfinite().all()


def test_gumbel_from_uniform_is_monotone():
    u = torch.linspace(0, 1, 1001)
    assert (gumbel_from_uniform(u.clone()).diff() > 0).all()
