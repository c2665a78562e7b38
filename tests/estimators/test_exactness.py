"""Estimators against the exact gradient, by enumeration in float64."""

import math

import pytest
import torch

from dvae.distributions import all_codes, gumbel_noise, one_hot
from dvae.estimators import ESTIMATORS
from dvae.estimators.gumbel import STGumbelSoftmax
from dvae.estimators.rao import GumbelRao, ReinMaxRao, conditional_relaxation
from dvae.estimators.score_function import RLOO, Reinforce
from dvae.estimators.straight_through import ZGR, GappedST, ReinMax, StraightThrough

N, K = 2, 3
LOGITS = torch.tensor([[0.4, -0.9, 0.3], [1.1, 0.0, -0.6]], dtype=torch.float64)
GENERATOR = torch.Generator().manual_seed(0)
WEIGHTS = torch.randn(N * K, dtype=torch.float64, generator=GENERATOR)
MATRIX = torch.randn(N * K, N * K, dtype=torch.float64, generator=GENERATOR)


def linear(z):
    return z.flatten(-2) @ WEIGHTS


def quadratic(z):
    flat = z.flatten(-2)
    return linear(z) + ((flat @ MATRIX) * flat).sum(-1)


def cubic(z):
    return quadratic(z) + (z.flatten(-2) @ WEIGHTS) ** 3


def exact_gradient(cost):
    logits = LOGITS.clone().requires_grad_()
    z = one_hot(all_codes(N, K), K, torch.float64)
    log_q = (z * logits.log_softmax(-1)).sum((-2, -1))
    return torch.autograd.grad((log_q.exp() * cost(z)).sum(), logits)[0]


def gradients(estimator, cost, n, temperature=1.0, seed=0):
    """n independent estimates, (n, N, K)."""
    logits = LOGITS.expand(n, N, K).clone().requires_grad_()
    generator = torch.Generator().manual_seed(seed)
    sample = estimator.sample(logits, temperature, generator=generator)
    loss = estimator.surrogate(cost(sample.z), sample)
    return torch.autograd.grad(loss, logits)[0] * n


def mean_over_draws(estimator, cost, temperature=1.0):
    """The expected gradient over all draws, for estimators that use the noise only to draw."""
    codes = all_codes(N, K)
    hard = one_hot(codes, K, torch.float64)
    q = (hard * LOGITS.log_softmax(-1)).sum((-2, -1)).exp()
    logits = LOGITS.expand(len(codes), N, K).clone().requires_grad_()
    # The noise makes each code the arg max in turn.
    sample = estimator.sample(logits, temperature, noise=100 * hard)
    assert torch.equal(sample.codes, codes)
    gradient = torch.autograd.grad(cost(sample.z).sum(), logits)[0]
    return (q[:, None, None] * gradient).sum(0)


def assert_mean(estimates, expected, errors=4.5):
    """Compares every coordinate: at 4.5 standard errors, a false alarm once in 10,000 seeds."""
    error = estimates.std(0) / math.sqrt(len(estimates))
    assert ((estimates.mean(0) - expected).abs() < errors * error + 1e-12).all()


@pytest.mark.parametrize(
    ("estimator", "cost"),
    [
        (StraightThrough(), linear),
        (ReinMax(), linear),
        (ReinMax(), quadratic),
        (ZGR(), linear),
        (ZGR(), quadratic),
    ],
)
def test_exact_for_costs_up_to_their_order(estimator, cost):
    assert torch.allclose(mean_over_draws(estimator, cost), exact_gradient(cost), atol=1e-12)


@pytest.mark.parametrize(
    ("estimator", "cost", "temperature"),
    [
        (StraightThrough(), quadratic, 1.0),
        (ReinMax(), cubic, 1.0),
        (ReinMax(), quadratic, 1.5),
        (ZGR(), cubic, 1.0),
        (GappedST(1.0), quadratic, 1.0),
    ],
)
def test_biased_for_other_costs(estimator, cost, temperature):
    """Control: the same comparison detects a biased estimator."""
    expected = exact_gradient(cost)
    assert not torch.allclose(mean_over_draws(estimator, cost, temperature), expected, atol=1e-3)


def test_zgr_is_reinmax_at_temperature_one():
    noise = gumbel_noise((200, N, K), dtype=torch.float64)
    results = []
    for estimator in (ZGR(), ReinMax()):
        logits = LOGITS.expand(200, N, K).clone().requires_grad_()
        z = estimator.sample(logits, 1.0, noise=noise).z
        results.append(torch.autograd.grad(cubic(z).sum(), logits)[0])
    assert torch.allclose(*results)


def test_reinmax_has_the_jacobian_of_the_papers_construction():
    """Algorithm 2 of Liu et al. 2023, term by term."""
    temperature, noise = 1.3, gumbel_noise((50, N, K), dtype=torch.float64)
    logits = LOGITS.expand(50, N, K).clone().requires_grad_()
    sample = ReinMax().sample(logits, temperature, noise=noise)
    (gradient,) = torch.autograd.grad(cubic(sample.z).sum(), logits)
    drawn = one_hot(sample.codes, K, torch.float64)
    pi_0 = logits.softmax(-1)
    pi_1 = (drawn + (logits / temperature).softmax(-1)) / 2
    pi_1 = ((pi_1.log() - logits).detach() + logits).softmax(-1)
    pi_2 = 2 * pi_1 - pi_0 / 2
    z = pi_2 - pi_2.detach() + drawn
    assert torch.allclose(gradient, torch.autograd.grad(cubic(z).sum(), logits)[0])


def test_exact_is_the_gradient_by_enumeration():
    for cost in (linear, quadratic, cubic):
        logits = LOGITS.clone().requires_grad_()
        estimator = ESTIMATORS["exact"]().build()
        sample = estimator.sample(logits, 1.0)
        loss = estimator.surrogate(cost(sample.z), sample)
        q = (sample.z * LOGITS.log_softmax(-1)).sum((-2, -1)).exp()
        expected = (q * cost(sample.z)).sum()
        assert torch.allclose(estimator.expected(cost(sample.z), sample), expected)
        assert torch.allclose(torch.autograd.grad(loss, logits)[0], exact_gradient(cost))


def test_exact_refuses_too_many_codes():
    with pytest.raises(ValueError, match="expected at most 16,384 codes, found 10\\^20"):
        ESTIMATORS["exact"]().build().sample(torch.zeros(20, 10))


@pytest.mark.parametrize("estimator", [RLOO(2), RLOO(5), Reinforce(None), Reinforce(0.9)])
def test_score_functions_are_unbiased(estimator):
    if getattr(estimator, "decay", None):
        # A baseline other than 0, as after earlier calls.
        estimator.average.fill_(1.5)
        estimator.weight.fill_(1.0)
    estimates = gradients(estimator.double().eval(), cubic, 100_000)
    assert_mean(estimates, exact_gradient(cubic))
    with pytest.raises(AssertionError):  # control: estimates that are 10 % too large
        assert_mean(1.1 * estimates, exact_gradient(cubic))


def test_baselines_lower_the_variance():
    def shifted(z):
        return quadratic(z) + 10

    plain = gradients(Reinforce(None), shifted, 20_000).var(0).sum()
    running = Reinforce(0.9).double()
    for seed in range(50):
        gradients(running, shifted, 200, seed=seed)
    assert gradients(running.eval(), shifted, 20_000).var(0).sum() < 0.3 * plain
    assert gradients(RLOO(4), shifted, 20_000).var(0).sum() < 0.3 * plain


def test_running_baseline_averages_earlier_calls():
    estimator = Reinforce(0.5)
    logits = torch.zeros(4, 1, 2, requires_grad=True)
    for costs in (torch.tensor([1.0, 3.0, 1.0, 3.0]), torch.full((4,), 8.0)):
        sample = estimator.sample(logits)
        estimator.surrogate(costs, sample)
    # The mean costs 2 and 8 have the weights ½ · ½ and ½, divided by their sum.
    assert (estimator.average / estimator.weight).item() == pytest.approx(6.0)
    estimator.eval().surrogate(torch.full((4,), 100.0), sample)
    assert (estimator.average / estimator.weight).item() == pytest.approx(6.0)


def test_surrogate_of_score_functions_equals_the_mean_cost():
    for estimator in (RLOO(3), Reinforce(0.9)):
        sample = estimator.sample(LOGITS.clone().requires_grad_())
        cost = cubic(sample.z)
        assert estimator.surrogate(cost, sample).item() == pytest.approx(cost.mean().item())


@pytest.mark.parametrize("temperature", [0.3, 1.0])
def test_gumbel_rao_keeps_the_mean_and_lowers_the_variance(temperature):
    n = 100_000
    plain = gradients(ESTIMATORS["st_gumbel_softmax"]().build(), cubic, n, temperature)
    rao = gradients(GumbelRao(20), cubic, n // 5, temperature, seed=1)
    error = (plain.var(0) / len(plain) + rao.var(0) / len(rao)).sqrt()
    assert ((plain.mean(0) - rao.mean(0)).abs() < 4.5 * error).all()
    assert rao.var(0).sum() < 0.9 * plain.var(0).sum()
    # With one relaxed sample, Gumbel-Rao has the distribution of straight-through Gumbel-Softmax.
    single = gradients(GumbelRao(1), cubic, n, temperature, seed=2)
    assert single.var(0).sum().item() == pytest.approx(plain.var(0).sum().item(), rel=0.05)


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_conditional_relaxations_match_a_rejection_sampler(temperature):
    logits = LOGITS[0]
    n, generator = 200_000, torch.Generator().manual_seed(3)
    noise = gumbel_noise((n, K), dtype=torch.float64, generator=generator)
    relaxed = ((logits + noise) / temperature).softmax(-1)
    for drawn in range(K):
        accepted = relaxed[(logits + noise).argmax(-1) == drawn]
        hard = one_hot(torch.tensor(drawn), K, torch.float64)
        exponential = -torch.rand(len(accepted), K, dtype=torch.float64, generator=generator).log()
        given = conditional_relaxation(logits.softmax(-1), hard, temperature, exponential)
        assert (given.argmax(-1) == drawn).all()
        # First and second moments, then the whole distribution.
        for moment in (1, 2):
            a, b = accepted**moment, given**moment
            error = ((a.var(0) + b.var(0)) / len(a)).sqrt()
            assert ((a.mean(0) - b.mean(0)).abs() < 4.5 * error).all()
        for k in range(K):
            statistic = _kolmogorov_smirnov(accepted[:, k], given[:, k])
            assert statistic < 2.3 * math.sqrt(2 / len(accepted))  # false alarm: 5e-5
            wrong = ((logits + noise) / (1.2 * temperature)).softmax(-1)[: len(accepted), k]
            assert _kolmogorov_smirnov(wrong, given[:, k]) > 2.3 * math.sqrt(2 / len(accepted))


def _kolmogorov_smirnov(a, b):
    """The largest distance between two empirical distribution functions."""
    values = torch.cat([a, b]).sort().values
    below = [torch.searchsorted(x.sort().values, values, right=True) / len(x) for x in (a, b)]
    return (below[0] - below[1]).abs().max().item()


def test_reinmax_rao_equals_its_formula():
    """2 J_GR at the midpoint − J(p) / 2, with relaxed samples computed from logarithms."""
    samples, temperature = 3, 0.7
    noise = gumbel_noise((1 + samples, N, K), dtype=torch.float64)
    logits = LOGITS.clone().requires_grad_()
    sample = ReinMaxRao(samples).sample(logits, temperature, noise=noise)
    (gradient,) = torch.autograd.grad(cubic(sample.z), logits)
    drawn = one_hot(sample.codes, K, torch.float64)
    z = drawn.clone().requires_grad_()
    (incoming,) = torch.autograd.grad(cubic(z), z)
    p = LOGITS.softmax(-1)
    theta = ((drawn + p) / 2).log()
    expected = torch.zeros_like(LOGITS)
    for g in noise[1:]:
        e = (-g).exp()
        own = (e * drawn).sum(-1, keepdim=True)
        # The conditional Gumbels of the midpoint, whose Z is 1.
        perturbed = torch.where(drawn > 0, -own.log(), -(e / theta.exp() + own).log())
        leaf = theta.clone().requires_grad_()
        relaxed = ((leaf + (perturbed - theta)) / temperature).softmax(-1)
        expected += 2 / samples * torch.autograd.grad((relaxed * incoming).sum(), leaf)[0]
    expected -= p * (incoming - (p * incoming).sum(-1, keepdim=True)) / 2
    assert torch.allclose(gradient, expected)


def test_reinmax_rao_lowers_the_variance_of_reinmax():
    plain = gradients(ReinMax(), quadratic, 40_000, 1.0)
    rao = gradients(ReinMaxRao(50), quadratic, 4_000, 1.0, seed=1)
    assert rao.var(0).sum() < 0.9 * plain.var(0).sum()


def test_backward_temperature_replaces_the_temperature():
    noise = gumbel_noise((20, N, K), dtype=torch.float64)

    def gradient(estimator, temperature):
        logits = LOGITS.expand(20, N, K).clone().requires_grad_()
        z = estimator.sample(logits, temperature, noise=noise).z
        return torch.autograd.grad(cubic(z).sum(), logits)[0]

    assert torch.equal(gradient(STGumbelSoftmax(0.7), 0.1), gradient(STGumbelSoftmax(None), 0.7))


def test_gapped_st_separates_the_draw():
    estimator = GappedST(gap=1.0)
    codes = all_codes(N, K)
    hard = one_hot(codes, K, torch.float64)
    theta = LOGITS.expand(len(codes), N, K)
    # At a tiny temperature the surrogate's arg max is the draw, for every code.
    surrogate = estimator._relax(theta, theta, hard, 0.01)
    assert torch.equal(surrogate.argmax(-1), codes)
    # If the draw leads by more than the gap, nothing is shifted: plain straight-through.
    logits = torch.tensor([[3.0, 0.0, -1.0]], dtype=torch.float64)
    mode = one_hot(torch.tensor([0]), K, torch.float64)
    assert torch.allclose(estimator._relax(logits, logits, mode, 1.0), logits.softmax(-1))


@pytest.mark.parametrize(
    ("name", "option", "value", "expected"),
    [
        ("gumbel_rao", "num_relaxations", 0, "greater than or equal to 1"),
        ("reinmax_rao", "num_relaxations", 0, "greater than or equal to 1"),
        ("rloo", "num_samples", 1, "greater than or equal to 2"),
        ("reinforce", "decay", 1.0, "less than 1"),
        ("gapped_st", "gap", -1.0, "greater than or equal to 0"),
        ("gapped_st", "gap", float("nan"), "a finite number"),
        ("st_gumbel_softmax", "backward_temperature", -1.0, "greater than 0"),
    ],
)
def test_options_out_of_range_are_refused(name, option, value, expected):
    with pytest.raises(ValueError, match=rf"{option}\s+Input should be {expected}"):
        ESTIMATORS[name](**{option: value})
