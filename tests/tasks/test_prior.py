"""The second stage: a prior for a trained VAE, from training to sampling."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_lightning.callbacks import Callback
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import dvae
from dvae.commands.checking import check
from dvae.commands.cli import compose
from dvae.commands.encode import encode
from dvae.commands.evaluate import evaluate
from dvae.commands.sample import sample
from dvae.commands.train import train
from dvae.data.sources import SOURCES
from dvae.distributions import one_hot
from dvae.errors import UserError
from dvae.tasks.options import EncodeConfig, EvaluateConfig, SampleConfig
from dvae.training.checkpoints import load_checkpoint
from dvae.training.config import RunConfig

SMALL = [
    "trainer.limit_train_batches=20",
    "trainer.limit_eval_batches=1",
    "trainer.max_epochs=2",
    "trainer.log_every=10",
    "test_samples=5",
]


def _checkpoint(config):
    return Path(config.paths.output_dir) / "checkpoints" / "best.ckpt"


@pytest.fixture(scope="module")
def place(tmp_path_factory, data_dir):
    """Makes the configuration of a run, which has a folder of its own by name."""
    root = tmp_path_factory.mktemp("prior")

    def config(name, *overrides):
        own = [f"paths.data_dir={data_dir}", f"paths.output_dir={root / name}"]
        quick = ["trainer.progress_bar=false", "trainer.accelerator=cpu", *SMALL]
        return check(RunConfig, compose("train", [*own, *quick, *overrides]))

    return config


@pytest.fixture(scope="module")
def first(place):
    """A trained VAE, and its test metrics."""
    # All validation images fit into one batch.
    options = ["model.num_categories=4", "model.hidden=[32]", "data.validation=500"]
    config = place("first", "model.num_latents=6", *options)
    return _checkpoint(config), train(config)


@pytest.fixture(scope="module")
def second(place, first):
    """The same VAE with a prior of its own, and the metrics of that run."""
    config = place("second", "task=prior", f"checkpoint={first[0]}", "prior.width=32")
    return _checkpoint(config), train(config)


def _evaluate(checkpoint, data_dir, **options):
    values = compose("evaluate", [f"checkpoint={checkpoint}", f"data_dir={data_dir}"])
    values |= {"progress_bar": False, "device": "cpu", **options}
    return evaluate(check(EvaluateConfig, values))


def _sample(checkpoint, data_dir, tmp_path, *overrides):
    own = [f"checkpoint={checkpoint}", f"data_dir={data_dir}", f"output_dir={tmp_path}"]
    picture = sample(check(SampleConfig, compose("sample", [*own, "device=cpu", *overrides])))
    with np.load(picture.with_suffix(".npz")) as arrays:
        return np.asarray(Image.open(picture)), dict(arrays)


def test_only_the_prior_is_trained(first, second):
    before, after = (load_checkpoint(path)["state_dict"] for path in (first[0], second[0]))
    prior = {name for name in after if name.startswith("vae.prior.")}
    assert prior
    assert after.keys() - prior == before.keys()
    for name in before:
        assert torch.equal(before[name], after[name]), name
    assert any(after[name].any() for name in prior if "head" in name)


def test_metrics_compare_with_other_priors(first, second):
    before, after = first[1], second[1]
    assert after["test/distortion"] == pytest.approx(before["test/distortion"], abs=1e-4)
    assert after["test/uniform_rate"] == pytest.approx(before["test/rate"], abs=1e-4)
    information = 6 * after["test/latent_information"]
    assert after["test/factorized_rate"] == pytest.approx(information, abs=1e-4)
    assert after["test/rate"] < after["test/factorized_rate"] < after["test/uniform_rate"]
    assert after["test/elbo"] == pytest.approx(-after["test/distortion"] - after["test/rate"])
    assert after["test/nll_iw5"] < -after["test/elbo"]
    assert after["val/elbo"] > before["val/elbo"]


def test_the_checkpoint_is_that_of_a_vae(second, data_dir, tmp_path):
    checkpoint, metrics = second
    assert load_checkpoint(checkpoint)["config"]["task"] == "vae"
    options = {"split": "val", "num_samples": 5, "output": str(tmp_path / "x.json")}
    found = _evaluate(checkpoint, data_dir, **options)
    assert found["val/elbo"] == pytest.approx(metrics["val/elbo"], abs=1e-4)
    assert found["val/nll_iw5"] < -found["val/elbo"]
    model = dvae.load(checkpoint)
    assert model.vae.prior.depends_on_draw
    assert model.sample(3).shape == (3, 1, 28, 28)
    values = compose(
        "encode", [f"checkpoint={checkpoint}", f"data_dir={data_dir}", "splits=[test]"]
    )
    values |= {"progress_bar": False, "device": "cpu", "output_dir": str(tmp_path)}
    [path] = encode(check(EncodeConfig, values))
    assert np.load(path).shape == (10_000, 6)


def test_curves_show_the_rate_of_a_code(second):
    events = EventAccumulator(str(second[0].parent.parent)).Reload()
    [*_, rate] = events.Scalars("train/rate")
    [*_, each] = events.Scalars("train/nats_per_code")
    assert each.value == pytest.approx(rate.value / 6)
    assert 0 < each.value < math.log(4)
    assert {"val/rate", "val/uniform_rate", "val/factorized_rate"} <= {*events.Tags()["scalars"]}


def test_an_interrupted_run_resumes_exactly(place, first, second):
    """Two epochs at once, or one and then the other, give the same weights."""
    overrides = ["task=prior", f"checkpoint={first[0]}", "prior.width=32"]

    class Interrupt(Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 1:
                raise KeyboardInterrupt

    config = place("halves", *overrides)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        train(config, [Interrupt()])
    last = _checkpoint(config).with_name("last.ckpt")
    metrics = train(place("halves", *overrides, f"resume={last}"))
    assert metrics == second[1]


def test_the_mode_of_frozen_parts_does_not_change(first):
    """Batch normalization would use, and change, statistics of the batch."""
    from dvae.tasks.prior.module import PriorModule

    vae = dvae.load(first[0]).vae
    module = PriorModule(vae).train()
    assert vae.prior.training
    assert not any(part.training for part in (vae.encoder, vae.decoder, *vae.encoder.modules()))
    images = torch.rand(3, 1, 28, 28)
    assert torch.equal(vae.encode(images)[:2], vae.encode(images[:2]))
    assert not module.eval().vae.prior.training


def test_pictures_use_the_prior(second, data_dir, tmp_path):
    checkpoint, _ = second
    picture, arrays = _sample(checkpoint, data_dir, tmp_path, "num_images=4")
    assert picture.shape[0] > 2 * 28
    assert {*arrays} == {"codes"}
    _, cold = _sample(checkpoint, data_dir, tmp_path, "num_images=500", "sampling_temperature=0.01")
    assert cold["sampling_temperature"] == 0.01
    assert len(np.unique(cold["codes"], axis=0)) < 5
    own = ["what=completion", "num_images=3"]
    picture, arrays = _sample(checkpoint, data_dir, tmp_path, *own, "keep=4")
    assert arrays["codes"].shape == (3, 6, 6)
    assert (arrays["codes"][..., :4] == arrays["codes"][:, :1, :4]).all()
    _, half = _sample(checkpoint, data_dir, tmp_path, *own)
    assert (half["codes"][..., :3] == half["codes"][:, :1, :3]).all()
    assert not (half["codes"][..., 3:] == half["codes"][:, :1, 3:]).all()
    picture, _ = _sample(checkpoint, data_dir, tmp_path, "what=interpolation", "num_images=2")


def test_an_interpolation_takes_the_most_probable_of_several_paths(second):
    from dvae.tasks.vae.pictures import interpolation_codes, likely_interpolation

    prior = dvae.load(second[0]).vae.prior
    start, end = torch.zeros(5, 6, dtype=torch.int64), torch.full((5, 6), 3)

    def generator():
        return torch.Generator().manual_seed(0)

    path = likely_interpolation(prior, start, end, 7, generator())
    assert torch.equal(path[:, 0], start)
    assert torch.equal(path[:, -1], end)
    source = generator()
    others = torch.stack([interpolation_codes(start, end, 7, source) for _ in range(32)])
    scores = prior.log_prob(others).mean(-1)
    assert torch.equal(prior.log_prob(path).mean(-1), scores.amax(0))
    assert (scores.amax(0) > scores[0]).any()


@pytest.fixture(scope="module")
def conditional(place, first):
    """A prior that knows the classes of digits."""
    options = ["prior.width=64", "prior.num_classes=10", "trainer.limit_train_batches=100"]
    config = place("conditional", "task=prior", f"checkpoint={first[0]}", *options)
    train(config)
    return _checkpoint(config)


def test_classes_make_codes_more_probable(conditional, data_dir, tmp_path):
    model = dvae.load(conditional)
    images = SOURCES["mnist"]().build(data_dir, 0)
    images.prepare_data()
    codes = model.encode(images.images("test")[:2000])
    labels = images.labels("test")[:2000]
    prior = model.vae.prior
    with torch.no_grad():
        right = prior.log_prob(codes, one_hot(labels, 10)).mean()
        wrong = prior.log_prob(codes, one_hot((labels + 1) % 10, 10)).mean()
        without = prior.log_prob(codes).mean()
    # What a class tells about the code, at most ln 10.
    assert 0.3 < right - without < math.log(10)
    assert wrong < without
    _, arrays = _sample(conditional, data_dir, tmp_path, "label=3", "num_images=50")
    own = prior.log_prob(torch.from_numpy(arrays["codes"]), one_hot(torch.tensor([3]), 10))
    assert own.mean() > prior.log_prob(torch.from_numpy(arrays["codes"])).mean()
    for label in (10, -1):
        with pytest.raises(UserError, match=f"label: expected 0 to 9, found {label}"):
            model.sample(1, label=label)


def test_grids_of_coloured_images_in_a_folder_that_moves(place, data_dir, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    generator = np.random.default_rng(0)
    for number in range(60):
        pixels = generator.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(images / f"{number}.png")
    network = ["model=resnet", "model.channels=8", "model.blocks=1", "model.num_categories=8"]
    data = ["data=folder", f"data.root={images}", "data.size=[12,16]", "data.batch_size=16"]
    options = ["trainer.max_epochs=1", "likelihood=discretized_logistic", "optimizer.lr=1e-3"]
    config = place("grid", *network, *data, *options)
    train(config)
    moved = images.rename(tmp_path / "moved")
    own = ["trainer.max_epochs=1", f"data.root={moved}", "data.batch_size=8", "prior.width=16"]
    config = place("grid prior", "task=prior", f"checkpoint={_checkpoint(config)}", *own)
    metrics = train(config)
    assert metrics["test/bits_per_dim"] > 0
    assert dvae.load(_checkpoint(config)).vae.prior.grid == (3, 4)
    _, arrays = _sample(_checkpoint(config), data_dir, tmp_path, "what=completion", "num_images=2")
    # Half of three rows is two rows of four.
    assert (arrays["codes"][..., :8] == arrays["codes"][:, :1, :8]).all()
    assert not (arrays["codes"][..., 8:] == arrays["codes"][:, :1, 8:]).all()
    with pytest.raises(UserError, match="prior.num_classes: expected 0, as the images have no"):
        train(place("x", "task=prior", f"checkpoint={_checkpoint(config)}", "prior.num_classes=2"))


@pytest.mark.parametrize("options", [["model.groups=2"], ["model.levels=2"]])
def test_groups_and_levels(place, options):
    """The first stage may draw its codes in several steps; lower levels are fitted, too."""
    model = ["model.num_latents=4", "model.num_categories=3", "model.hidden=[8]", *options]
    quick = ["trainer.max_epochs=1", "trainer.limit_train_batches=2"]
    first = place("levels", *model, *quick)
    before = train(first)
    own = [f"checkpoint={_checkpoint(first)}", "prior.width=16", "trainer.max_epochs=1"]
    config = place("levels prior", "task=prior", *own)
    after = train(config)
    assert after["test/elbo"] > before["test/elbo"]
    assert dvae.load(_checkpoint(config)).sample(2).shape == (2, 1, 28, 28)


def test_mistakes_end_in_one_line(place, first, second, tmp_path, data_dir):
    own = ["task=prior", f"checkpoint={first[0]}"]
    for overrides, message in (
        (["task=prior"], "checkpoint: expected a checkpoint of task=vae, found none"),
        ([*own, "prior.delay=0.5"], "prior.delay: expected null or 0 with task=prior"),
        (["task=prior", f"checkpoint={tmp_path}/x.ckpt"], "checkpoint: expected a file, found"),
        ([*own, "prior=uniform"], "prior: expected one that is learned, found uniform"),
        ([*own, "data.name=cifar10"], r"data.name: expected images of shape \(1, 28, 28\)"),
        ([*own, "prior.num_classes=3"], "prior.num_classes: expected 0 or 10 with data.name=mnist"),
        ([*own, "data.validation=0", "callbacks.early_stopping=2"], "callbacks.early_stopping"),
        ([*own, "estimator=reinmax"], "estimator: no such key"),
        (["prior=autoregressive", "prior.num_classes=10"], "prior.num_classes: expected 0 with"),
    ):
        with pytest.raises(UserError, match=message):
            train(place("refused", *overrides))
    for overrides, message in (
        (["label=3"], "label: expected null with a prior without classes, found 3"),
        (["keep=3"], "keep: expected null with what=prior, found 3"),
        (["what=traversal", "sampling_temperature=0.5"], "sampling_temperature: expected null"),
    ):
        with pytest.raises(UserError, match=message):
            _sample(second[0], data_dir, tmp_path, *overrides)
