"""Structured output prediction, against enumeration of all codes of both layers."""

import json
import math

import numpy as np
import pytest
import torch

from dvae.commands.checking import check
from dvae.commands.cli import compose
from dvae.commands.evaluate import evaluate
from dvae.commands.sample import sample
from dvae.commands.train import train
from dvae.distributions import all_codes, one_hot
from dvae.errors import UserError
from dvae.estimators import ESTIMATORS
from dvae.estimators.score_function import Reinforce
from dvae.layers import CategoricalLayer
from dvae.likelihoods.bernoulli import Bernoulli
from dvae.randomness import ImageStreams
from dvae.tasks.options import EvaluateConfig, SampleConfig
from dvae.tasks.structured_prediction.model import StochasticNetwork, halves
from dvae.tasks.structured_prediction.module import StructuredPredictionModule
from dvae.training.config import RunConfig
from dvae.training.settings import Evaluation

N, K = 2, 3


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(1)
    return torch.rand(3, 1, 4, 4, generator=generator, dtype=torch.float64).round()


def _network(estimator="st_gumbel_softmax", images=None):
    torch.manual_seed(0)
    options = ESTIMATORS[estimator]()
    later = Reinforce(None) if options.score_function else options.build()
    layers = [CategoricalLayer(1.0, estimator), CategoricalLayer(1.0, later)]
    network = StochasticNetwork(layers, N, K, Bernoulli(), torch.rand(1, 4, 4)).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += torch.randn_like(parameter)
    return network


def _module(network, max_decodes):
    evaluation = Evaluation(max_decodes=max_decodes)
    return StructuredPredictionModule(network, num_samples=1, evaluation=evaluation)


def _enumerate(network, images):
    """log p(z1, z2|x) and log p(y|z2) of all pairs of codes, (K^2N, B) each."""
    upper, lower = halves(images)
    codes = all_codes(2 * N, K)
    log_prior = torch.zeros(len(codes), len(images), dtype=torch.float64)

    def draw(number, logits):
        z = one_hot(codes[:, number * N : (number + 1) * N], K, torch.float64).unsqueeze(1)
        nonlocal log_prior
        log_prior = log_prior + (logits.log_softmax(-1) * z).sum((-2, -1))
        return z.expand(-1, len(images), -1, -1)

    repeated = upper.expand(len(codes), *upper.shape)
    log_likelihood = network.likelihood.log_prob(lower, network.propagate(repeated, draw))
    return log_prior, log_likelihood


def test_halves_are_the_image(images):
    upper, lower = halves(images)
    assert upper.shape == lower.shape == (3, 1, 2, 4)
    assert torch.equal(torch.cat([upper, lower], -2), images)


def test_the_prior_of_codes_is_normalized(images):
    log_prior, _ = _enumerate(_network(), images)
    assert torch.allclose(log_prior.logsumexp(0), torch.zeros(3, dtype=torch.float64))


def test_sampled_likelihood_matches_enumeration(images):
    """m = 1,000 agrees within 4 standard errors; m = 1 is too low by the expected gap."""
    network = _network()
    log_prior, log_likelihood = _enumerate(network, images)
    exact = (log_prior + log_likelihood).logsumexp(0)
    weights = (log_likelihood - exact).exp()
    error = ((log_prior.exp() * (weights - 1) ** 2).sum(0) / 1000).sqrt()
    module = _module(network, max_decodes=99)

    def bound(count, seed):
        streams = ImageStreams(torch.arange(3), seed)
        return module._sampled_bound(images, streams, count)

    assert ((bound(1000, 0) - exact).exp() - 1).abs().div(error).max() < 4
    assert torch.equal(bound(1000, 0), bound(1000, 0))
    single = torch.stack([bound(1, seed) for seed in range(500)])
    gap = exact - (log_prior.exp() * log_likelihood).sum(0)
    assert (gap > 0).all()
    difference = exact - single.mean(0) - gap
    assert (difference.abs() / (single.std(0) / 500**0.5)).max() < 4


def test_chunks_do_not_change_the_likelihood(images):
    network = _network()
    results = []
    for chunk in (3, 7, 10_000):
        module = _module(network, max_decodes=chunk)
        results.append(module._sampled_bound(images, ImageStreams(torch.arange(3), 0), 20))
    assert torch.allclose(results[0], results[1])
    assert torch.allclose(results[0], results[2])


@pytest.mark.parametrize("estimator", ["reinforce", "rloo"])
def test_score_functions_are_unbiased_through_both_layers(images, estimator):
    network = _network(estimator)
    parameters = [network.maps[0].weight, network.maps[1].weight, network.head.weight]
    log_prior, log_likelihood = _enumerate(network, images)
    expected = -(log_prior.exp() * log_likelihood).sum(0).mean()
    exact = torch.cat([g.flatten() for g in torch.autograd.grad(expected, parameters)])
    many = images.repeat(50, 1, 1, 1)
    estimates = []
    for _ in range(200):
        loss, _ = network.training_pass(many, 1)
        estimates.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)]))
    estimates = torch.stack(estimates)
    error = estimates.std(0) / len(estimates) ** 0.5
    # 4 standard errors in each of 48 entries: a false alarm in 1 of 300 seeds.
    assert ((estimates.mean(0) - exact).abs() <= 4 * error + 1e-12).all()
    first = parameters[0].numel()
    assert exact[:first].norm() > 5 * error[:first].norm(), "the gradient is lost in noise"


def test_more_samples_tighten_the_training_bound(images):
    network = _network("gumbel_softmax")
    many = images.repeat(500, 1, 1, 1)
    losses = [network.training_pass(many, m)[0].item() for m in (1, 5, 25)]
    assert losses[0] > losses[1] > losses[2]


SMALL = [
    "task=structured_prediction",
    "debug=fast",
    "data.eval_batch_size=50",
    "trainer.progress_bar=false",
    "trainer.accelerator=cpu",
]


def _config(tmp_path, data_dir, *overrides):
    own = [f"paths.data_dir={data_dir}", f"paths.output_dir={tmp_path / 'run'}"]
    return check(RunConfig, compose("train", [*SMALL, *own, *overrides]))


OPTIONS = [
    *(f"estimator={name}" for name, options in ESTIMATORS.items() if not options.score_function),
    "estimator=reinforce objective.num_samples=1",
    "model.num_layers=1",
    "model.num_layers=3 estimator=rloo objective.num_samples=1",
    "model.num_layers=1 estimator=carms objective.num_samples=1",
    "model.num_latents=200 model.num_categories=2",
    "objective.num_samples=1",
    "precision=bf16",
    "data.validation=0",
    "compile=true",
]


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_trains(tmp_path, data_dir, option):
    metrics = train(_config(tmp_path, data_dir, *option.split()))
    assert all(math.isfinite(value) for value in metrics.values())
    assert metrics["test/nll_iw2"] > 0


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["estimator=exact"], "estimator: expected one that draws"),
        (["estimator=rloo"], "objective.num_samples: expected 1"),
        (["estimator=carms", "objective.num_samples=1"], "model.num_layers: expected 1"),
        (["callbacks.gradient_snr=5"], "callbacks.gradient_snr: expected null"),
        (["callbacks.early_stopping=1", "data.validation=0"], "callbacks.early_stopping"),
        (["data.size=[27,28]"], "data.size: expected an even height"),
        (["objective=vimco"], "objective.name: expected one of 'likelihood'"),
    ],
)
def test_invalid_settings_are_refused(tmp_path, data_dir, overrides, message):
    with pytest.raises(UserError, match=message):
        _config(tmp_path, data_dir, *overrides)


def test_checkpoints_are_evaluated_and_sampled(tmp_path, data_dir):
    metrics = train(_config(tmp_path, data_dir, "trainer.limit_train_batches=20"))
    assert (tmp_path / "run" / "completions.png").exists()
    own = [f"checkpoint={tmp_path / 'run/checkpoints/best.ckpt'}", f"data_dir={data_dir}"]
    own += ["device=cpu"]
    quick = ["split=val", "num_samples=3", "progress_bar=false", f"output={tmp_path / 'm.json'}"]
    values = compose("evaluate", [*own, *quick, "data.validation=60", "batch_size=7"])
    small = evaluate(check(EvaluateConfig, values))
    values["batch_size"] = 60
    assert evaluate(check(EvaluateConfig, values)) == pytest.approx(small, rel=1e-5)
    assert len(json.loads((tmp_path / "m.json").read_text())["latents"]["information"]) == 40
    assert metrics["test/elbo"] < 0
    values = compose("sample", [*own, f"output_dir={tmp_path}", "num_images=5"])
    picture = sample(check(SampleConfig, values))
    assert picture == tmp_path / "completions.png"
    assert np.load(picture.with_suffix(".npz"))["codes"].shape == (4, 5, 40)
    with pytest.raises(UserError, match="num_steps: expected null .* task=structured_prediction"):
        sample(check(SampleConfig, {**values, "num_steps": 3}))
    with pytest.raises(UserError, match="what: expected one of completions, found 'prior'"):
        sample(check(SampleConfig, {**values, "what": "prior"}))
