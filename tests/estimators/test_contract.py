"""One contract for all estimators, split by property."""

from functools import partial

import pytest
import torch

from dvae import CategoricalLayer, distributions
from dvae.distributions import gumbel_noise, one_hot
from dvae.estimators import ESTIMATORS
from dvae.estimators.base import CodeSample, check_temperature, replace_gradient
from dvae.estimators.rao import GumbelRao

DRAWING = [name for name, options in ESTIMATORS.items() if not options.enumerates]
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


@pytest.fixture(params=sorted(ESTIMATORS))
def estimator(request):
    return ESTIMATORS[request.param]().build()


@pytest.fixture(params=DRAWING)
def drawing(request):
    """Estimators that draw codes: all but `exact`, which enumerates them."""
    return ESTIMATORS[request.param]().build()


def _leading(estimator):
    """The leading axis that `sample` adds, for 4 latents of 6 categories."""
    if estimator.options.enumerates:
        return (6**4,)
    # Estimators that draw several codes per image have the attribute `num_samples`.
    return (estimator.num_samples,) if hasattr(estimator, "num_samples") else ()


def _noise(estimator, shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return gumbel_noise(estimator.noise_shape(shape), generator=generator)


def _cost(sample):
    """A cost of each draw, quadratic in z."""
    weights = torch.arange(sample.z.shape[-1], dtype=torch.float32, device=sample.z.device)
    return (sample.z.float() * weights).sum((-2, -1)) ** 2


def test_shapes(estimator):
    for leading in [(), (5,), (3, 5)]:
        sample = estimator.sample(torch.randn(*leading, 4, 6), 0.7)
        assert isinstance(sample, CodeSample)
        expected = (*_leading(estimator), *leading)
        assert sample.codes.shape == (*expected, 4)
        assert sample.codes.dtype == torch.int64
        assert torch.broadcast_shapes(sample.z.shape, (*expected, 4, 6)) == (*expected, 4, 6)
        assert estimator.surrogate(_cost(sample).expand(expected), sample).shape == ()


@pytest.mark.parametrize("dtype", DTYPES)
def test_values_and_dtypes(estimator, dtype):
    logits = torch.randn(50, 4, 6, dtype=dtype, requires_grad=True)
    sample = estimator.sample(logits, 0.7)
    assert sample.z.dtype == dtype
    hot = one_hot(sample.codes, 6, dtype)
    if estimator.hard:
        assert torch.equal(sample.z.expand_as(hot), hot)
    else:
        assert torch.allclose(sample.z.sum(-1).float(), torch.ones(50, 4), atol=1e-2)
        assert ((sample.z * hot).sum(-1) >= sample.z.amax(-1)).all()
    estimator.surrogate(_cost(sample), sample).backward()
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
        estimator.surrogate(_cost(sample), sample).backward()
    assert layer.weight.grad.isfinite().all()
    assert layer.weight.grad.abs().sum() > 0
    if estimator.hard:
        assert set(sample.z.unique().tolist()) == {0.0, 1.0}


def test_noise_makes_the_draw_deterministic(drawing):
    logits, noise = torch.randn(5, 4, 6), _noise(drawing, (5, 4, 6))
    first, second = (drawing.sample(logits.requires_grad_(), 0.5, noise=noise) for _ in range(2))
    assert torch.equal(first.z, second.z)
    assert torch.equal(first.codes, second.codes)
    if not drawing.options.coupled:
        own = noise[0] if isinstance(drawing, GumbelRao) else noise
        assert torch.equal(first.codes, (logits + own).argmax(-1))
    gradients = [
        torch.autograd.grad(drawing.eval().surrogate(_cost(s), s), logits)[0]
        for s in (first, second)
    ]
    assert torch.equal(*gradients)


def test_generator_makes_the_draw_deterministic(drawing):
    logits = torch.randn(5, 4, 6)
    z = [
        drawing.sample(logits, 0.5, generator=torch.Generator().manual_seed(s)).z for s in (3, 3, 4)
    ]
    assert torch.equal(z[0], z[1])
    assert not torch.equal(z[0], z[2])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_extreme_logits(estimator, temperature, dtype):
    values = [[[1e4, -1e4, 0.0], [-1e4, 1e4, 1e4]]]
    logits = torch.tensor(values, dtype=dtype, requires_grad=True)
    sample = estimator.sample(logits, temperature)
    estimator.surrogate(_cost(sample), sample).backward()
    assert sample.z.isfinite().all()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_forced_zeros_of_the_generator(drawing, monkeypatch, dtype):
    real = torch.rand

    def with_zeros(*args, **options):
        u = real(*args, **options)
        u.view(-1)[::3] = 0
        return u

    monkeypatch.setattr(distributions.torch, "rand", with_zeros)
    logits = torch.randn(5, 4, 6, dtype=dtype, requires_grad=True)
    sample = drawing.sample(logits, 0.3)
    drawing.surrogate(_cost(sample), sample).backward()
    assert sample.z.isfinite().all()
    assert logits.grad.isfinite().all()


def _largest_z(codes, probs):
    counts = torch.stack([(codes == k).double().sum(0) for k in range(probs.shape[-1])], -1)
    n = len(codes)
    return ((counts - n * probs) / (n * probs * (1 - probs)).sqrt()).abs().max()


@pytest.mark.parametrize("temperature", [0.1, 0.5, 1.0, 5.0])
def test_codes_follow_the_logits_at_every_temperature(drawing, temperature):
    logits = torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    n, generator = 40_000, torch.Generator().manual_seed(2)

    def draw(theta):
        sample = drawing.sample(theta.expand(n, 3, 5), temperature, generator=generator)
        return sample.codes.reshape(-1, 3)

    codes = draw(logits)
    # 15 frequencies within 4.5 standard errors: a false alarm once in 10,000 seeds.
    assert _largest_z(codes, logits.softmax(-1)) < 4.5
    # Control: a sampler with other logits fails.
    assert _largest_z(draw(logits / 1.1), logits.softmax(-1)) > 4.5


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_bad_temperatures_are_refused(estimator, temperature):
    attempts = [
        lambda: CategoricalLayer(temperature, estimator),
        lambda: CategoricalLayer(1.0, estimator).set_temperature(temperature),
        lambda: check_temperature(temperature),
    ]
    if estimator.uses_temperature:
        tensors = torch.tensor(temperature), torch.tensor([[1.0], [temperature]])
        values = temperature, *tensors
        attempts.extend(partial(estimator.sample, torch.zeros(2, 3), value) for value in values)
    for attempt in attempts:
        with pytest.raises(ValueError, match="temperature: expected a finite number > 0, found"):
            attempt()


def test_compiles_without_a_graph_break(drawing):
    def step(logits, temperature, noise):
        sample = drawing.sample(logits, temperature, noise=noise)
        loss = drawing.surrogate(_cost(sample), sample)
        return sample.z, sample.codes, loss

    logits, temperature = torch.randn(5, 4, 6), torch.tensor(0.7)
    logits[:, 1, 3] = -torch.inf
    logits.requires_grad_()
    noise = _noise(drawing, (5, 4, 6))
    torch._dynamo.reset()
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    drawing.eval()
    eager, fast = (f(logits, temperature, noise) for f in (step, compiled))
    for one, other in zip(eager, fast, strict=True):
        assert torch.allclose(one, other)
    gradients = [torch.autograd.grad(result[2], logits)[0] for result in (eager, fast)]
    assert torch.allclose(*gradients, atol=1e-5)


def test_temperature_has_an_effect_only_if_the_options_say_so(drawing):
    noise = _noise(drawing, (50, 4, 6))

    def gradient(temperature):
        logits = torch.linspace(-1, 1, 1200).reshape(50, 4, 6).requires_grad_()
        sample = drawing.eval().sample(logits, temperature, noise=noise)
        return torch.autograd.grad(drawing.surrogate(_cost(sample), sample), logits)[0]

    assert torch.equal(gradient(0.5), gradient(1.5)) is not drawing.uses_temperature


def test_gradient_of_gumbel_softmax_is_that_of_the_softmax():
    logits = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    noise = gumbel_noise((4, 6), dtype=torch.float64)
    weights = torch.randn(4, 6, dtype=torch.float64)
    (expected,) = torch.autograd.grad(
        (((logits + noise) / 0.4).softmax(-1) * weights).sum(), logits
    )
    for name in ("gumbel_softmax", "st_gumbel_softmax"):
        z = ESTIMATORS[name]().build().sample(logits, 0.4, noise=noise).z
        (gradient,) = torch.autograd.grad((z * weights).sum(), logits)
        assert torch.allclose(gradient, expected), name
