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


@pytest.mark.parametrize("shape", [(5, 7, 2), (7, 2), (3, 5, 7, 2), (5, 1, 1), (2,), ()])
@pytest.mark.parametrize("num_categories", [2, 5, 200])
def test_inversion_counts_the_sums_that_a_number_exceeds(shape, num_categories):
    """A search finds what comparisons with all sums find, for numbers of any shape."""
    torch.manual_seed(0)
    logits, uniform = 3 * torch.randn(7, 2, num_categories), torch.rand(shape)
    cumulative = logits.softmax(-1).cumsum(-1)
    compared = uniform.unsqueeze(-1) >= cumulative[..., :-1] / cumulative[..., -1:]
    assert torch.equal(sample_categorical(logits, uniform), compared.sum(-1))


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


DENSITIES = {
    "entropy": lambda logits, prior, log_z: categorical_entropy(logits),
    "kl": lambda logits, prior, log_z: categorical_kl(logits, prior),
    "posterior": lambda logits, prior, log_z: concrete_log_prob(log_z, logits, 0.6),
    "prior": lambda logits, prior, log_z: concrete_log_prob(log_z, prior, 2),
}


# torch's softmax is used for 20 categories, the project's own for 4.
@pytest.mark.parametrize("k", [4, 20])
@pytest.mark.parametrize("left", ["half", "one"])
@pytest.mark.parametrize("name", DENSITIES)
def test_masked_categories_are_as_if_they_did_not_exist(name, left, k):
    """Value and gradient equal those without the masked categories."""
    kept = k // 2 if left == "half" else 1
    logits, prior = torch.randn(5, k, dtype=torch.float64), torch.randn(k, dtype=torch.float64)
    noise = gumbel_noise((5, k), dtype=torch.float64)
    if name == "kl":
        prior[kept:] = -torch.inf
    logits[..., kept:] = -torch.inf
    results = []
    for size in (k, kept):
        leaf = logits[..., :size].clone().requires_grad_()
        log_z = concrete_sample(leaf, 0.6, noise[..., :size])
        value = DENSITIES[name](leaf, prior[:size], log_z)
        results.append((value, *torch.autograd.grad(value.sum(), leaf)))
    (value, gradient), (expected, expected_gradient) = results
    assert torch.allclose(value, expected)
    assert torch.allclose(gradient[..., :kept], expected_gradient)
    assert (gradient[..., kept:] == 0).all()


@pytest.mark.parametrize("k", [4, 20])
def test_kl_of_a_masked_posterior_to_a_uniform_prior(k):
    logits = torch.randn(5, k, dtype=torch.float64)
    logits[..., ::2] = -torch.inf
    prior = torch.zeros(k, dtype=torch.float64, requires_grad=True)
    logits.requires_grad_()
    kl = categorical_kl(logits, prior)
    assert torch.allclose(kl, math.log(k) - categorical_entropy(logits))
    for gradient in torch.autograd.grad(kl.sum(), (logits, prior)):
        assert gradient.isfinite().all()
        assert gradient.abs().sum() > 0
    # The other way round, the posterior uses categories that the prior excludes: infinite, in
    # numbers that leave the gradient finite.
    kl = categorical_kl(prior, logits)
    assert (kl > 1e300).all()
    assert torch.autograd.grad(kl[0], prior)[0].isfinite().all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_masked_densities_are_finite_in_every_precision(dtype):
    logits = torch.randn(50, 6, dtype=dtype)
    logits[..., 2:4] = -torch.inf
    logits.requires_grad_()
    log_z = concrete_sample(logits, 0.1, gumbel_noise((50, 6), dtype=dtype))
    values = {
        "entropy": categorical_entropy(logits),
        "kl": categorical_kl(logits, torch.zeros(6, dtype=dtype)),
        "posterior": concrete_log_prob(log_z, logits, 0.1),
        "prior": concrete_log_prob(log_z, torch.zeros(6, dtype=dtype), 0.5),
    }
    for name, value in values.items():
        (gradient,) = torch.autograd.grad(value.sum(), logits, retain_graph=True)
        assert value.isfinite().all(), name
        assert gradient.isfinite().all(), name
        assert (gradient[..., 2:4] == 0).all(), name


def _alternating(real):
    """A cumulative sum that rounds up and down in turn, as the sums on a GPU may."""

    def cumsum(self, dim):
        signs = 1 - 2 * (torch.arange(self.shape[dim]) % 2)
        return real(self, dim) * (1 + torch.finfo(self.dtype).eps * signs)

    return cumsum


@pytest.mark.parametrize("rounding", ["exact", "alternating"])
def test_inversion_never_draws_masked_categories(monkeypatch, rounding):
    if rounding == "alternating":
        monkeypatch.setattr(torch.Tensor, "cumsum", _alternating(torch.Tensor.cumsum))
    logits = torch.randn(200, 8)
    mask = torch.rand(200, 8) < 0.6
    mask[torch.arange(200), torch.randint(8, (200,))] = False
    logits[mask] = -torch.inf
    ends = torch.cat([torch.zeros(1), 1 - 2.0**-24 * torch.arange(1, 5), torch.rand(1000)])
    codes = sample_categorical(logits, ends.unsqueeze(1).expand(-1, 200))
    # Numbers at the very bounds between two categories.
    p = logits.softmax(-1)
    bounds = (p.cumsum(-1) / p.cumsum(-1)[..., -1:]).T.clamp_max(1 - 2.0**-24)
    for draws in (codes, sample_categorical(logits, bounds)):
        assert not mask.expand(*draws.shape, 8).gather(-1, draws.unsqueeze(-1)).any()


def test_concrete_density_with_a_temperature_for_each_row():
    logits = torch.randn(3, 4, dtype=torch.float64)
    log_z = concrete_sample(logits, 0.7, gumbel_noise((3, 4), dtype=torch.float64))
    rows = torch.tensor([[0.5], [1.0], [2.0]], dtype=torch.float64)
    each = [concrete_log_prob(y, a, t.item()) for y, a, t in zip(log_z, logits, rows, strict=True)]
    assert torch.allclose(concrete_log_prob(log_z, logits, rows), torch.stack(each))
    # Every temperature for every row.
    table = concrete_log_prob(log_z, logits, rows.unsqueeze(1))
    assert table.shape == (3, 3)
    assert torch.allclose(table.diagonal(), torch.stack(each))
    with pytest.raises(ValueError, match=r"temperature: expected a shape \(..., 1\), found \(4,\)"):
        concrete_log_prob(log_z, logits, torch.ones(4))


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf])
def test_bad_temperatures_are_refused(temperature):
    zeros = torch.zeros(2, 3)
    for given in (temperature, torch.tensor(temperature)):
        for attempt in (
            lambda given=given: concrete_sample(zeros, given, zeros),
            lambda given=given: concrete_log_prob(zeros, zeros, given),
        ):
            with pytest.raises(ValueError, match="temperature: expected a finite number > 0"):
                attempt()


def test_gumbel_from_uniform_is_monotone():
    u = torch.linspace(0, 1, 1001)
    assert (gumbel_from_uniform(u.clone()).diff() > 0).all()
