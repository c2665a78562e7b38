"""Estimators that lower the variance of another one, and keep its mean."""

import itertools

import pytest
import torch

from dvae.distributions import all_codes, exponential_noise, one_hot
from dvae.estimators.carms import CARMS, antithetic_uniform
from dvae.estimators.score_function import RLOO
from dvae.estimators.straight_through import ReinMax, ReinMaxCV

from .test_exactness import (
    LOGITS,
    K,
    N,
    assert_mean,
    cubic,
    exact_gradient,
    gradients,
    mean_over_draws,
    quadratic,
)


def _pair_noise(uniform):
    """Noise of two draws whose uniform numbers are u and 1 − u."""
    return -torch.stack([1 - uniform, uniform]).log()


@pytest.mark.parametrize("cost", [quadratic, cubic])
def test_two_draws_of_carms_are_unbiased_by_enumeration(cost):
    """The codes change only where a uniform number crosses π or 1 − π: all cells are tried."""
    p = LOGITS.softmax(-1)
    # Each category's share of what is left, from the least probable to the most.
    ordered, order = p.sort(-1)
    sticks = (ordered / ordered.flip(-1).cumsum(-1).flip(-1)).gather(-1, order.argsort(-1))
    cells = []
    for stick in sticks.flatten():
        ends = torch.stack([0 * stick, stick, 1 - stick, 0 * stick + 1]).sort().values
        cells.append([((a + b) / 2, b - a) for a, b in itertools.pairwise(ends) if b > a])
    combinations = list(itertools.product(*cells))
    uniform = torch.tensor([[u for u, _ in cell] for cell in combinations]).reshape(-1, N, K)
    weight = torch.tensor([[w for _, w in cell] for cell in combinations]).prod(-1)
    assert weight.sum().item() == pytest.approx(1)

    logits = LOGITS.expand(len(weight), N, K).clone().requires_grad_()
    estimator = CARMS(2)
    sample = estimator.sample(logits, noise=_pair_noise(uniform))
    loss = estimator.surrogate(cost(sample.z), sample) * len(weight)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert torch.allclose((weight[:, None, None] * gradient).sum(0), exact_gradient(cost))
    # So are the codes themselves, of each draw.
    for drawn in one_hot(sample.codes, K, torch.float64):
        assert torch.allclose((weight[:, None, None] * drawn).sum(0), p)


@pytest.mark.parametrize("num_samples", [2, 3, 4, 7])
def test_carms_is_unbiased(num_samples):
    estimates = gradients(CARMS(num_samples), cubic, 100_000)
    assert_mean(estimates, exact_gradient(cubic), 4)
    with pytest.raises(AssertionError):  # control: estimates that are 10 % too large
        assert_mean(1.1 * estimates, exact_gradient(cubic), 4)


def test_carms_without_its_ratios_is_biased(monkeypatch):
    """Control: the draws depend on one another enough for the test above to notice."""

    def ones(self, sample):
        return torch.ones(4, 4, *sample.codes.shape[1:], dtype=torch.float64)

    monkeypatch.setattr(CARMS, "_pair_ratios", ones)
    with pytest.raises(AssertionError):
        assert_mean(gradients(CARMS(4), cubic, 100_000), exact_gradient(cubic), 4)


@pytest.mark.parametrize("num_samples", [2, 4, 8])
def test_carms_has_less_variance_than_leave_one_out(small_vae, num_samples):
    """On a network, with 3 latents of 4 categories."""
    torch.manual_seed(0)
    images = (torch.rand(3, 1, 28, 28) < 0.3).double()
    logits = small_vae.encode(images).detach()
    variances = []
    for estimator in (CARMS(num_samples), RLOO(num_samples)):
        rows = logits.expand(4000, *logits.shape).clone().requires_grad_()
        sample = estimator.sample(rows)
        table = small_vae.distortion(images, one_hot(all_codes(3, 4), 4).double().unsqueeze(1))
        index = (sample.codes * torch.tensor([16, 4, 1])).sum(-1)
        cost = table.detach().T.expand(*index.shape, -1).gather(-1, index.unsqueeze(-1)).squeeze(-1)
        loss = estimator.surrogate(cost, sample) * 12_000
        variances.append(torch.autograd.grad(loss, rows)[0].var(0).sum())
    assert variances[0] < 0.95 * variances[1]


def test_two_categories_and_two_draws_are_disarm():
    """½ (f(b) − f(b')) (b − b') σ(|φ|), from Dong, Mnih, Tucker 2020."""
    phi = torch.linspace(-4, 4, 9, dtype=torch.float64)
    logits = torch.stack([phi, 0 * phi], -1).unsqueeze(1).requires_grad_()
    sample = CARMS(2).sample(logits, generator=torch.Generator().manual_seed(0))
    cost = (sample.z[..., 0, 0] - 0.3) ** 2
    loss = CARMS(2).surrogate(cost, sample) * 9
    (gradient,) = torch.autograd.grad(loss, logits)
    first, second = sample.z[..., 0, 0].detach()
    assert (first != second).any()
    expected = (cost[0] - cost[1]) / 2 * (first - second) * phi.abs().sigmoid()
    assert torch.allclose(gradient[:, 0, 0], expected)


@pytest.mark.parametrize("num_samples", [2, 3, 5])
def test_antithetic_numbers_are_uniform_with_the_density_of_their_copula(num_samples):
    n, generator = 200_000, torch.Generator().manual_seed(0)
    noise = exponential_noise((num_samples, n), dtype=torch.float64, generator=generator)
    u, power = antithetic_uniform(noise), num_samples - 1
    for a, b in itertools.product((0.1, 0.4, 0.8), repeat=2):
        assert (u[0] <= a).double().mean().item() == pytest.approx(a, abs=4 * (0.25 / n) ** 0.5)
        both = max(0.0, a ** (1 / power) + b ** (1 / power) - 1) ** power
        found = ((u[0] <= a) & (u[1] <= b)).double().mean().item()
        assert found == pytest.approx(both, abs=4 * (0.25 / n) ** 0.5)
        assert both < a * b


@pytest.mark.parametrize("temperature", [1.0, 1.4])
def test_reinmax_cv_has_the_mean_of_reinmax_by_enumeration(temperature):
    """All pairs of codes in a batch of two rows with different costs."""
    codes = all_codes(2 * N, K).reshape(-1, 2, N)
    hard = one_hot(codes, K, torch.float64)
    q = (hard * LOGITS.log_softmax(-1)).sum((-3, -2, -1)).exp()
    mean = torch.zeros(2, N, K, dtype=torch.float64)
    plain = mean.clone()
    for weight, draw in zip(q, hard, strict=True):
        for estimator, total in ((ReinMaxCV(1.0), mean), (ReinMax(), plain)):
            logits = LOGITS.expand(2, N, K).clone().requires_grad_()
            z = estimator.sample(logits, temperature, noise=100 * draw).z
            loss = cubic(z[0]) + 0.5 * quadratic(z[1])
            total += weight * torch.autograd.grad(loss, logits)[0]
    assert torch.allclose(mean, plain)
    assert torch.allclose(plain[0], mean_over_draws(ReinMax(), cubic, temperature))


@pytest.mark.parametrize("temperature", [1.0, 1.4])
@pytest.mark.parametrize("cost", [quadratic, cubic])
def test_reinmax_cv_has_less_variance_than_reinmax(cost, temperature):
    plain = gradients(ReinMax(), cost, 40_000, temperature)
    estimates = gradients(ReinMaxCV(1.0), cost, 40_000, temperature, seed=1)
    assert_mean(estimates, mean_over_draws(ReinMax(), cost, temperature))
    assert estimates.var(0).sum() < 0.95 * plain.var(0).sum()


def test_reinmax_cv_leaves_no_variance_to_equally_likely_pairs():
    """Two categories of probability ½ and a quadratic cost: the gradient is exact."""
    logits = torch.zeros(5000, 1, 2, dtype=torch.float64, requires_grad=True)
    z = ReinMaxCV(1.0).sample(logits, 1.0).z
    (gradient,) = torch.autograd.grad(((3 * z[..., 0, 0] + z[..., 0, 1]) ** 2).sum(), logits)
    expected = torch.tensor([2.0, -2.0], dtype=torch.float64)
    assert torch.allclose(gradient, expected.expand(5000, 1, 2), atol=0.1)
    # What is left is the sampling noise of the baseline.
    assert gradient.std(0).max() < 0.1
    plain = ReinMax().sample(logits, 1.0).z
    (other,) = torch.autograd.grad(((3 * plain[..., 0, 0] + plain[..., 0, 1]) ** 2).sum(), logits)
    assert other.std(0).min() > 0.5


def test_without_other_rows_reinmax_cv_is_reinmax():
    noise = torch.zeros(N, K, dtype=torch.float64)
    results = []
    for estimator in (ReinMaxCV(1.0), ReinMax()):
        logits = LOGITS.clone().requires_grad_()
        z = estimator.sample(logits, 1.0, noise=noise).z
        results.append(torch.autograd.grad(cubic(z), logits)[0])
    assert torch.equal(*results)
