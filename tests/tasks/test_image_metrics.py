"""Bits per dimension, PSNR and SSIM: where they are reported, and what they are."""

import json
import math
from io import StringIO

import pytest
import torch
from rich.console import Console
from torchmetrics.functional.image import structural_similarity_index_measure

from dvae.commands.checking import check
from dvae.commands.cli import compose
from dvae.commands.evaluate import evaluate
from dvae.commands.report import metrics_table
from dvae.commands.train import train
from dvae.data.binarize import to_unit
from dvae.distributions import gumbel_from_uniform
from dvae.errors import UserError
from dvae.likelihoods import LIKELIHOODS
from dvae.models.vae import VAE
from dvae.networks import NETWORKS
from dvae.randomness import ImageStreams
from dvae.tasks.loading import load_module
from dvae.tasks.options import EvaluateConfig
from dvae.tasks.vae.module import VAEModule
from dvae.tasks.vae.pictures import reconstructions
from dvae.training.config import RunConfig

SMALL = ["debug=fast", "model.hidden=[16]", "model.num_latents=4", "model.num_categories=12"]
FEW = ["data.validation=60", "data.eval_batch_size=50", "trainer.limit_eval_batches=2"]
GREY = "data.binarization=none"


@pytest.fixture(scope="module")
def run(tmp_path_factory, data_dir):
    """The folder and the metrics of a short run with 8-bit pixels."""
    folder = tmp_path_factory.mktemp("run")
    where = [f"paths.data_dir={data_dir}", f"paths.output_dir={folder}"]
    quick = ["trainer.progress_bar=false", "trainer.accelerator=cpu"]
    options = [*SMALL, *FEW, *where, *quick, GREY, "likelihood=discretized_logistic"]
    return folder, train(check(RunConfig, compose("train", options)))


def _evaluate(folder, data_dir, *overrides):
    own = [f"checkpoint={folder / 'checkpoints' / 'best.ckpt'}", f"data_dir={data_dir}"]
    quick = ["device=cpu", "progress_bar=false", "num_samples=2"]
    return evaluate(check(EvaluateConfig, compose("evaluate", [*own, *quick, *overrides])))


def test_bits_per_dimension_are_bounds_in_other_units(run, data_dir, tmp_path):
    folder, metrics = run
    evaluated = _evaluate(folder, data_dir, "split=val", f"output={tmp_path / 'm.json'}")
    bit = math.log(2) * 784
    for found, split in ((metrics, "test"), (evaluated, "val")):
        assert found[f"{split}/bits_per_dim"] == pytest.approx(-found[f"{split}/elbo"] / bit)
        iw = found[f"{split}/bits_per_dim_iw2"]
        assert iw == pytest.approx(found[f"{split}/nll_iw2"] / bit)
        # Untrained, and of 256 values: at most about 8 bits.
        assert 0 < iw < 10
    assert json.loads((tmp_path / "m.json").read_text())["metrics"] == evaluated


def test_validation_curves_hold_the_metrics(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run[0]))
    events.Reload()
    assert {"val/bits_per_dim", "val/psnr", "val/ssim"} <= set(events.Tags()["scalars"])


def test_tables_name_the_units(run):
    console = Console(file=StringIO(), width=120)
    console.print(metrics_table("", run[1], VAEModule.units))
    lines = {
        name: line for line in console.file.getvalue().splitlines() for name in line.split()[1:2]
    }
    assert "bits per dimension" in lines["test/bits_per_dim"]
    assert "bits per dimension" in lines["test/bits_per_dim_iw2"]
    assert "nats per image" in lines["test/nll_iw2"]
    assert " dB " in lines["test/psnr"]
    assert "at most 1" in lines["test/ssim"]


@torch.no_grad()
def test_psnr_and_ssim_compare_means_of_hard_codes_over_the_split(run, data_dir, tmp_path):
    folder = run[0]
    results = [
        _evaluate(folder, data_dir, "split=val", f"output={tmp_path / 'm.json'}", *more)
        for more in (["batch_size=7"], ["batch_size=60"])
    ]
    module, stored = load_module(folder / "checkpoints" / "best.ckpt")
    module.eval()
    images = to_unit(stored.data.build(data_dir, 0).images("val"))
    logits = module.vae.encode(images)
    noise = ImageStreams(torch.arange(60), 0).uniform(1, *logits.shape[1:])[0]
    codes = (logits + gumbel_from_uniform(noise)).argmax(-1)
    means = module.vae.likelihood.mean(module.vae.decode_codes(codes))
    psnr = -10 * (means.double() - images).square().mean().log10().item()
    ssim = structural_similarity_index_measure(means, images, data_range=1.0).item()
    for metrics in results:
        assert metrics["val/psnr"] == pytest.approx(psnr, rel=1e-5)
        assert metrics["val/ssim"] == pytest.approx(ssim, rel=1e-4)


def test_binarized_images_have_no_new_metrics(make_config):
    metrics = train(make_config(*SMALL, *FEW))
    names = {name.partition("/")[2] for name in metrics}
    assert not any(name.startswith(("bits", "psnr", "ssim")) for name in names)


@pytest.mark.parametrize("name", sorted(LIKELIHOODS.keys() - {"discretized_logistic"}))
def test_every_likelihood_trains_two_steps_on_grey_images(make_config, name):
    metrics = train(make_config(*SMALL, *FEW, GREY, f"likelihood={name}"))
    assert all(math.isfinite(value) for value in metrics.values())
    assert {"test/psnr", "test/ssim"} <= metrics.keys()
    assert ("test/bits_per_dim" in metrics) == (name == "logistic_mixture")


@pytest.mark.parametrize(
    ("task", "pixels"), [("structured_prediction", 392), ("semi_supervised", 784)]
)
def test_other_tasks_report_bits_per_dimension_too(make_config, task, pixels):
    few = ["debug=fast", "data.eval_batch_size=50", GREY, "likelihood=discretized_logistic"]
    metrics = train(make_config(f"task={task}", *few))
    found = metrics["test/bits_per_dim"], metrics["test/bits_per_dim_iw2"]
    bounds = -metrics["test/elbo"], metrics["test/nll_iw2"]
    assert found == pytest.approx([bound / (math.log(2) * pixels) for bound in bounds])


def test_many_codes_are_enumerated_only_if_one_product_scores_them(make_config):
    codes = ["model.num_latents=11", "model.num_categories=2", "model.hidden=[8]"]
    for likelihood, latents, enumerated in (
        ("bernoulli", 11, True),
        ("discretized_logistic", 11, False),
        ("discretized_logistic", 10, True),
    ):
        options = [*codes, GREY, f"likelihood={likelihood}", f"model.num_latents={latents}"]
        module = VAEModule(make_config(*options).build_model().eval())
        with torch.no_grad():
            module.on_test_epoch_start()
        assert (module._enumeration is not None) == enumerated


def test_small_images_have_no_ssim(make_config):
    vae = make_config("data.size=5", "model.hidden=[8]").build_model()
    assert set(VAEModule(vae).similarity) == {"psnr"}


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["likelihood=discretized_logistic"], "expected none with .*=discretized.* found dynamic"),
        (["likelihood=logistic_mixture", "data.binarization=fixed"], "expected none .* fixed"),
        (["likelihood=gaussian"], "expected none with likelihood=gaussian"),
        (["likelihood=logit_laplace"], "expected none with likelihood=logit_laplace"),
        (["task=structured_prediction", "likelihood=gaussian"], "expected none .* found fixed"),
    ],
)
def test_likelihoods_of_other_pixels_are_refused(make_config, options, found):
    with pytest.raises(UserError, match=f"^data.binarization: {found}"):
        make_config(*options)


def test_binary_likelihoods_take_grey_but_not_coloured_pixels():
    bernoulli = LIKELIHOODS["bernoulli"]()
    for channels, binarization in ((1, "none"), (1, "dynamic"), (3, "fixed")):
        bernoulli.check_data(channels, binarization)
    with pytest.raises(UserError, match="dynamic or fixed .* images of 3 channels, found none"):
        bernoulli.check_data(3, "none")


def test_evaluation_refuses_other_pixels(run, data_dir):
    with pytest.raises(UserError, match="expected none with .* found dynamic"):
        _evaluate(run[0], data_dir, "data.binarization=dynamic")


@pytest.mark.parametrize("network", ["mlp", "conv"])
def test_coloured_images_that_are_not_square(make_config, network):
    """Each likelihood of coloured pixels scores and shows them."""
    config, shape = make_config(), (3, 8, 12)
    sizes = NETWORKS[network](num_latents=3, num_categories=4)
    for name, kind in LIKELIHOODS.items():
        if kind.pixels == "binary":
            continue
        likelihood = kind().build()
        vae = VAE(
            sizes.build_encoder(shape),
            sizes.build_decoder(shape, likelihood.channels(3)),
            config.build_layer(),
            config.prior.build((3,), 4),
            likelihood,
            torch.rand(shape),
            base_rates=True,
        )
        images = torch.randint(256, (5, *shape)).float() / 255
        assert vae(images, 2).distortion.shape == (2, 5), name
        grid, _ = reconstructions(vae.eval(), images)
        assert grid.shape == (3, 3 * 10 + 2, 5 * 14 + 2)
        rows = grid[:, 2:, 2:].unfold(1, 8, 10).unfold(2, 12, 14).permute(1, 2, 0, 3, 4)
        assert torch.equal(rows[0], images)
        # The means of 4 × 4 × 4 codes are in colours.
        assert (rows[1][:, 0] != rows[1][:, 1]).any()
