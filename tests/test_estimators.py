"""One contract for all estimators, split by property."""

import pytest
import torch

from dvae import GumbelSoftmax, distributions
from dvae.distributions import gumbel_noise, one_hot
from dvae.estimators import ESTIMATORS, CodeSample, check_temperature, replace_gradient

ALL = sorted(ESTIMATORS)
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


@pytest.fixture(params=ALL)
def estimator(request):
    return ESTIMATORS[request.param]()


def test_shapes(estimator):
    for leading in [(), (5,), (3, 5)]:
        sample = estimator.sample(torch.randn(*leading, 4, 6), 0.7)
        assert isinstance(sample, CodeSample)
        assert sample.z.shape == (*leading, 4, 6)
        assert sample.codes.shape == (*leading, 4)
        assert sample.codes.dtype == torch.int64


@pytest.mark.parametrize("dtype", DTYPES)
def test_values_and_dtypes(estimator, dtype):
    logits = torch.randn(50, 4, 6, dtype=dtype, requires_grad=True)
    sample = estimator.sample(logits, 0.7)
    assert sample.z.dtype == dtype
    hot = one_hot(sample.codes, 6, dtype)
    if estimator.hard:
        assert torch.equal(sample.z, hot)
    else:
        assert torch.allclose(sample.z.sum(-1).float(), torch.ones(50, 4), atol=1e-2)
        assert torch.equal(sample.z.argmax(-1), sample.codes) or dtype in DTYPES[2:]
    weights = torch.randn(6, dtype=dtype)
    estimator.surrogate((sample.z * weights).sum((-2, -1)).float(), sample).backward()
    assert logits.grad.dtype == dtype
    assert logits.grad.isfinite().all()
    assert logits.grad.abs().sum() > 0


def test_hard_values_are_exact_where_the_naive_expression_rounds():
    logits = torch.randn(10_000, 1, 10, generator=torch.Generator().manual_seed(0))
    soft = logits.softmax(-1)
    hot = one_hot(logits.argmax(-1), 10)
    naive = hot + soft - soft.detach()
    assert not torch.equal(naive, hot), "the example no longer shows the rounding"
    assert torch.equal(replace_gradient(hot, soft), hot)


def test_autocast(estimator):
    layer = torch.nn.Linear(8, 24)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = layer(torch.randn(5, 8)).unflatten(-1, (4, 6))
        assert logits.dtype == torch.bfloat16
        sample = estimator.sample(logits, 0.5)
        estimator.surrogate((sample.z * torch.arange(6)).sum((-2, -1)), sample).backward()
    assert layer.weight.grad.isfinite().all()
    if estimator.hard:
        assert set(sample.z.unique().tolist()) == {0.0, 1.0}


def test_noise_makes_it_deterministic(estimator):
    logits, noise = torch.randn(5, 4, 6), gumbel_noise((5, 4, 6))
    first, second = (estimator.sample(logits, 0.5, noise=noise) for _ in range(2))
    assert torch.equal(first.z, second.z)
    assert torch.equal(first.codes, (logits + noise).argmax(-1))


def test_generator_makes_it_deterministic(estimator):
    logits = torch.randn(5, 4, 6)
    z = [
        estimator.sample(logits, 0.5, generator=torch.Generator().manual_seed(s)).z
        for s in (3, 3, 4)
    ]
    assert torch.equal(z[0], z[1])
    assert not torch.equal(z[0], z[2])


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_extreme_logits(estimator, temperature):
    logits = torch.tensor([[[1e4, -1e4, 0.0], [-1e4, 1e4, 1e4]]], requires_grad=True)
    sample = estimator.sample(logits, temperature)
    estimator.surrogate((sample.z * torch.arange(3.0)).sum((-2, -1)), sample).backward()
    assert sample.z.isfinite().all()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_forced_zeros_of_the_generator(estimator, monkeypatch, dtype):
    real = torch.rand

    def with_zeros(*args, **options):
        u = real(*args, **options)
        u.view(-1)[::3] = 0
        return u

    monkeypatch.setattr(distributions.torch, "rand", with_zeros)
    logits = torch.randn(5, 4, 6, dtype=dtype, requires_grad=True)
    sample = estimator.sample(logits, 0.3)
    estimator.surrogate((sample.z * torch.arange(6)).sum((-2, -1)).float(), sample).backward()
    assert sample.z.isfinite().all()
    assert logits.grad.isfinite().all()


def _largest_z(codes, probs):
    counts = torch.stack([(codes == k).double().sum(0) for k in range(probs.shape[-1])], -1)
    n = len(codes)
    return ((counts - n * probs) / (n * probs * (1 - probs)).sqrt()).abs().max()


@pytest.mark.parametrize("temperature", [0.1, 0.5, 1.0, 5.0])
def test_codes_follow_the_logits_at_every_temperature(estimator, temperature):
    logits = torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    n, generator = 40_000, torch.Generator().manual_seed(2)
    codes = estimator.sample(logits.expand(n, 3, 5), temperature, generator=generator).codes
    # 15 frequencies within 4.5 standard errors: a false alarm once in 10,000 seeds.
    assert _largest_z(codes, logits.softmax(-1)) < 4.5
    # A sampler at the wrong temperature is found out.
    wrong = estimator.sample(logits.expand(n, 3, 5) / 1.1, temperature, generator=generator).codes
    assert _largest_z(wrong, logits.softmax(-1)) > 4.5


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_bad_temperatures_are_refused(estimator, temperature):
    for refuse in (
        lambda: estimator.sample(torch.zeros(2, 3), temperature),
        lambda: GumbelSoftmax(temperature, estimator),
        lambda: GumbelSoftmax(1.0, estimator).set_temperature(temperature),
        lambda: check_temperature(temperature),
    ):
        with pytest.raises(ValueError, match="temperature: expected a finite number > 0, found"):
            refuse()


def test_compiles_without_a_break(estimator):
    def step(logits, temperature, noise):
        sample = estimator.sample(logits, temperature, noise=noise)
        return sample.z, sample.codes

    logits, noise = torch.randn(5, 4, 6), gumbel_noise((5, 4, 6))
    temperature = torch.tensor(0.7)
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    for eager, fast in zip(
        step(logits, temperature, noise), compiled(logits, temperature, noise), strict=True
    ):
        assert torch.allclose(eager, fast)


def test_gradient_of_gumbel_softmax_is_that_of_the_softmax():
    logits = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    noise = gumbel_noise((4, 6), dtype=torch.float64)
    weights = torch.randn(4, 6, dtype=torch.float64)
    (expected,) = torch.autograd.grad(
        (((logits + noise) / 0.4).softmax(-1) * weights).sum(), logits
    )
    for name in ("gumbel_softmax", "st_gumbel_softmax"):
        z = ESTIMATORS[name]().sample(logits, 0.4, noise=noise).z
        (gradient,) = torch.autograd.grad((z * weights).sum(), logits)
        assert torch.allclose(gradient, expected), name
