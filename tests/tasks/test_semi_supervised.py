"""Semi-supervised classification, against enumeration of classes; which images have labels."""

import math

import numpy as np
import pytest
import torch

from dvae.commands.checking import check
from dvae.commands.cli import compose
from dvae.commands.evaluate import evaluate
from dvae.commands.sample import sample
from dvae.commands.train import train
from dvae.data.loader import BatchOrder
from dvae.distributions import one_hot
from dvae.errors import UserError
from dvae.estimators import ESTIMATORS
from dvae.layers import CategoricalLayer
from dvae.likelihoods.bernoulli import Bernoulli
from dvae.networks.mlp_options import MLPOptions
from dvae.randomness import ImageStreams
from dvae.tasks.options import EvaluateConfig, SampleConfig
from dvae.tasks.semi_supervised.data import draw_labelled
from dvae.tasks.semi_supervised.data_options import LABELLED
from dvae.tasks.semi_supervised.deform import deform
from dvae.tasks.semi_supervised.model import ClassStyleVAE
from dvae.tasks.semi_supervised.module import SemiSupervisedModule
from dvae.training.config import RunConfig
from dvae.training.settings import Evaluation

K, D = 3, 1


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(1)
    return torch.rand(4, 1, 4, 4, generator=generator, dtype=torch.float64).round()


@pytest.fixture
def noise():
    return torch.randn(4, D, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def _model(estimator="exact"):
    torch.manual_seed(0)
    shape, layer = (1, 4, 4), CategoricalLayer(0.7, estimator)
    options = MLPOptions(
        num_latents=1, num_categories=K, hidden=[5], activation="relu", normalization="none"
    )
    encoder = options.build_encoder(shape)
    model = ClassStyleVAE(encoder, layer, Bernoulli(), K, D, 6, torch.rand(shape)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return model


def _by_hand(model, images, noise):
    """The negative bound by loops over images and classes, with torch.distributions."""
    total = 0.0
    for i in range(len(images)):
        image = images[i : i + 1]
        q = torch.distributions.Categorical(logits=model.classify(image)[0, 0])
        for c in range(K):
            y = one_hot(torch.tensor([c]), K, torch.float64)
            mean, log_variance = (value[0] for value in model.encode(image, y))
            style = torch.distributions.Normal(mean, (log_variance / 2).exp())
            z = mean + style.stddev * noise[i]
            pixels = torch.distributions.Bernoulli(logits=model.decode(y, z.unsqueeze(0)))
            rate = torch.distributions.kl_divergence(style, torch.distributions.Normal(0.0, 1.0))
            total = total + q.probs[c] * (rate.sum() - pixels.log_prob(image).sum())
        uniform = torch.distributions.Categorical(logits=torch.zeros(K, dtype=torch.float64))
        total = total + torch.distributions.kl_divergence(q, uniform)
    return total / len(images)


def test_marginalization_is_the_sum_over_classes(images, noise):
    model = _model()
    parameters = list(model.parameters())
    bound = model.bound(model(images, noise=noise))
    expected = _by_hand(model, images, noise)
    assert torch.allclose(bound, expected, rtol=1e-12)
    own, by_hand = (torch.autograd.grad(value, parameters) for value in (bound, expected))
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(own, by_hand, strict=True))


def test_labelled_cost_is_the_term_of_the_label(images):
    model = _model()
    labels = torch.tensor([0, 2, 1, 1])
    with torch.random.fork_rng():
        torch.manual_seed(3)
        found = model.labelled_cost(images, labels)
        torch.manual_seed(3)
        noise = torch.randn(len(images), D, dtype=torch.float64)
    all_costs = model(images, noise=noise).cost
    expected = all_costs.gather(0, labels.unsqueeze(0))[0] + math.log(K)
    assert torch.allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("estimator", ["reinforce", "rloo", "carms"])
def test_drawn_classes_have_the_gradient_of_marginalized_ones(images, noise, estimator):
    def parameters(model):
        return [model.classifier.head.weight, model.from_class.weight]

    marginal = _model()
    exact = torch.autograd.grad(marginal.bound(marginal(images, noise=noise)), parameters(marginal))
    exact = torch.cat([gradient.flatten() for gradient in exact])
    model = _model(estimator)
    many, repeated = images.repeat(25, 1, 1, 1), noise.repeat(25, 1)
    estimates = []
    for _ in range(150):
        loss = model.bound(model(many, noise=repeated))
        gradient = torch.autograd.grad(loss, parameters(model))
        estimates.append(torch.cat([part.flatten() for part in gradient]))
    estimates = torch.stack(estimates)
    error = estimates.std(0) / len(estimates) ** 0.5
    # 4 standard errors in each of 33 entries: a false alarm in 1 of 480 seeds.
    assert ((estimates.mean(0) - exact).abs() <= 4 * error + 1e-12).all()
    first = marginal.classifier.head.weight.numel()
    assert exact[:first].norm() > 5 * error[:first].norm(), "the gradient is lost in noise"


@pytest.mark.parametrize("estimator", sorted(ESTIMATORS))
def test_every_estimator_reaches_all_parameters(images, estimator):
    model = _model(estimator)
    model.bound(model(images)).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_bounds_stay_below_the_likelihood(images):
    """The style has one dimension, so a sum over a fine grid gives log p(x)."""
    model = _model()
    grid = torch.linspace(-8, 8, 2001, dtype=torch.float64)
    log_prior = torch.distributions.Normal(0.0, 1.0).log_prob(grid) + math.log(grid[1] - grid[0])
    with torch.no_grad():
        z = grid.view(-1, 1, 1, 1).expand(-1, K, 1, 1)
        y = torch.eye(K, dtype=torch.float64).view(1, K, 1, K)
        log_p = model.likelihood.log_prob(images, model.decode(y.expand(2001, -1, -1, -1), z))
        exact = (log_p + log_prior.view(-1, 1, 1)).logsumexp((0, 1)) - math.log(K)
        noise = torch.randn(4000, 1, len(images), D, dtype=torch.float64)
        logits = model.classify(images)
        q = logits[:, 0].softmax(-1)
        costs = model.cost(images, y, noise)
        bounds = -(costs * q.T).sum(1) - model.rate(logits)
        error = bounds.std(0) / len(bounds) ** 0.5
        assert (bounds.mean(0) + 4 * error < exact).all()
        evaluation = Evaluation(max_decodes=999)
        module = SemiSupervisedModule(
            model, classification_weight=1.0, deformation=0.0, evaluation=evaluation
        )
        streams = ImageStreams(torch.arange(len(images)), 0)
        tight = module._sampled_bound(images, logits, streams, 20_000)
    assert (tight - exact).abs().max() < 0.02
    assert (exact - bounds.mean(0)).min() > 0.04, "the bound is too tight to test"


def test_labels_are_balanced_and_drawn_by_seed():
    labels = torch.randint(10, (5000,), generator=torch.Generator().manual_seed(0))
    chosen = draw_labelled(labels, 100, seed=1)
    assert labels[chosen].tolist() == [c for c in range(10) for _ in range(10)]
    assert len(chosen.unique()) == 100
    assert torch.equal(chosen, draw_labelled(labels, 100, seed=1))
    assert not torch.equal(chosen, draw_labelled(labels, 100, seed=2))


def test_labelled_images_are_independent_of_the_epoch_order():
    """Images in the first batch of an epoch are no likelier to have a label."""
    count, labels = 50_000, torch.arange(50_000) % 10
    chosen = set(draw_labelled(labels, 100, seed=0).tolist())
    for epoch in range(3):
        order = BatchOrder(count, 1000, seed=0, shuffle=True)
        order.set_epoch(epoch)
        assert len(chosen & set(next(iter(order)).tolist())) < 12


@pytest.mark.parametrize("count", [5, 105, 10_000])
def test_labels_that_cannot_be_balanced_are_refused(count):
    with pytest.raises(UserError, match=rf"data.num_labels: expected a multiple .* found {count}"):
        draw_labelled(torch.arange(200) % 10, count, seed=0)


@pytest.mark.parametrize("binarization", ["none", "dynamic"])
def test_labels_belong_to_their_images(data_dir, mnist, binarization):
    options = LABELLED["mnist"](binarization=binarization, batch_size=8, labelled_batch_size=20)
    data = options.build(data_dir, seed=3)
    data.setup()
    of_file = data.source.read_labels(train=True)
    assert torch.equal(torch.cat([data.labels("train"), data.labels("val")]), of_file)
    assert torch.equal(data.labels("test"), data.source.read_labels(train=False))
    chosen = set(data.labelled().tolist())
    batches = data.train_dataloader()._loader.batches()
    drawn = [next(batches) for _ in range(12)]
    raw = mnist(binarization="none").images("train")
    for batch in drawn:
        own = batch.indices[-20:]
        assert len(batch.images) == len(batch.indices) == 28
        assert torch.equal(batch.labels, of_file[own])
        assert set(own.tolist()) <= chosen
        assert len(own.unique()) == 20
        # Blank pixels stay blank, so the images belong to the indices.
        assert not batch.images[raw[batch.indices] == 0].any()
    again = data.train_dataloader()._loader.batches(7)
    for expected, found in zip(drawn[7:], again, strict=False):
        assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
    assert torch.equal(next(iter(data.eval_dataloader("val"))).labels, of_file[50_000:51_000])


def test_deformation():
    torch.manual_seed(0)
    images = torch.zeros(500, 1, 28, 28)
    images[..., 13:15, 13:15] = 1
    assert torch.allclose(deform(images, 0.0), images, atol=1e-5)
    moved = deform(images, 0.1)
    rows = (moved.sum((1, 3)) * torch.arange(28)).sum(-1) / moved.sum((1, 2, 3)) - 13.5
    # Shifts have a standard deviation of 0.1 of half the height.
    assert rows.std() == pytest.approx(1.4, rel=0.15)
    assert rows.mean().abs() < 4 * 1.4 / 500**0.5


SMALL = [
    "task=semi_supervised",
    "debug=fast",
    "data.eval_batch_size=50",
    "data.batch_size=10",
    "data.labelled_batch_size=10",
    "trainer.progress_bar=false",
    "trainer.accelerator=cpu",
]


def _config(tmp_path, data_dir, *overrides):
    own = [f"paths.data_dir={data_dir}", f"paths.output_dir={tmp_path / 'run'}"]
    return check(RunConfig, compose("train", [*SMALL, *own, *overrides]))


@pytest.mark.parametrize(
    "option",
    [
        "estimator=exact",
        "estimator=rloo",
        "estimator=gumbel_softmax temperature=constant",
        "model.classifier=mlp model.normalization=layer",
        "model.num_classes=30 data.binarization=dynamic",
        "data.binarization=fixed objective.deformation=0.0",
        "data.validation=0",
        "precision=bf16",
        "precision=64",
    ],
)
def test_every_option_trains(tmp_path, data_dir, option):
    metrics = train(_config(tmp_path, data_dir, *option.split()))
    assert all(math.isfinite(value) for value in metrics.values())
    assert 0 <= metrics["test/accuracy"] <= 100
    assert metrics["test/nll_iw2"] > 0


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.num_classes=9"], "model.num_classes: expected at least the 10 classes"),
        (["data.name=emnist"], "model.num_classes: expected at least the 47 classes"),
        (["estimator=exact", "temperature=constant"], "temperature: expected none"),
        (["data.name=omniglot"], "data.name"),
        (["callbacks.gradient_snr=5"], "callbacks.gradient_snr: expected null"),
        (["objective=elbo"], "objective.name: expected one of 'labels'"),
    ],
)
def test_invalid_settings_are_refused(tmp_path, data_dir, overrides, message):
    with pytest.raises(UserError, match=message):
        _config(tmp_path, data_dir, *overrides)


def test_training_evaluation_and_sampling(tmp_path, data_dir):
    config = _config(
        tmp_path,
        data_dir,
        "trainer.limit_train_batches=40",
        "data.batch_size=20",
        "data.labelled_batch_size=50",
        "model.classifier=mlp",
        "data.eval_batch_size=500",
    )
    metrics = train(config)
    # Chance gives 10 %.
    assert metrics["test/accuracy"] > 50
    assert (tmp_path / "run" / "classes.png").exists()
    own = [f"checkpoint={tmp_path / 'run/checkpoints/best.ckpt'}", f"data_dir={data_dir}"]
    own += ["device=cpu"]
    quick = ["split=val", "num_samples=3", "progress_bar=false", f"output={tmp_path / 'm.json'}"]
    values = compose("evaluate", [*own, *quick, "data.validation=60", "batch_size=7"])
    small = evaluate(check(EvaluateConfig, values))
    values["batch_size"] = 60
    assert evaluate(check(EvaluateConfig, values)) == pytest.approx(small, rel=1e-5)
    values = compose("sample", [*own, f"output_dir={tmp_path}", "what=classes", "num_images=5"])
    picture = sample(check(SampleConfig, values))
    codes = np.load(picture.with_suffix(".npz"))["codes"]
    assert codes.shape == (10, 5, 1)
    assert (codes[:, :, 0] == np.arange(10)[:, None]).all()
    values["data"]["name"] = "omniglot"
    fitting = "cifar10, fashion_mnist, kmnist, mnist, svhn"
    with pytest.raises(UserError, match=f"data.name: expected one of {fitting} with"):
        sample(check(SampleConfig, values))
