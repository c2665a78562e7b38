"""Groups and hierarchies of codes from the command to the pictures."""

import json

import numpy as np
import pytest
import torch

import dvae
from dvae.commands.checking import check
from dvae.commands.cli import compose
from dvae.commands.encode import encode
from dvae.commands.sample import sample
from dvae.commands.train import train
from dvae.data.binarize import to_unit
from dvae.distributions import gumbel_noise
from dvae.errors import UserError
from dvae.estimators import ESTIMATORS
from dvae.models.objectives import ELBO
from dvae.tasks.options import EncodeConfig, SampleConfig
from dvae.tasks.vae.config import VAEConfig
from dvae.tasks.vae.pictures import traversal_codes

SMALL = ["model.num_latents=4", "model.num_categories=4", "model.hidden=[8]", "model.between=[8]"]
FEW = [
    "trainer.max_epochs=1",
    "trainer.limit_train_batches=2",
    "trainer.limit_eval_batches=1",
    "data.batch_size=16",
    "data.eval_batch_size=16",
    "test_samples=3",
]
MODELS = {
    "groups": ["model.groups=2"],
    "ladder": ["model.levels=[4,2]", "model.skips=true", "model.dropout=0.1"],
    "bottom_up": ["model.levels=[4,2]", "model.inference=bottom_up", "model.code_map=hypercube"],
}


@pytest.fixture(scope="module", params=["groups", "ladder"])
def run(request, tmp_path_factory, data_dir):
    """A run of two steps: its folder, configuration and metrics."""
    folder = tmp_path_factory.mktemp(request.param)
    own = [f"paths.output_dir={folder}", f"paths.data_dir={data_dir}", "trainer=cpu"]
    quiet = ["trainer.progress_bar=false", *SMALL, *FEW, *MODELS[request.param]]
    config = check(VAEConfig, compose("train", [*own, *quiet]))
    return folder, config, train(config)


def test_metrics_are_reported_for_each_level(run):
    _, config, metrics = run
    levels = len(config.model.sizes)
    rates = [metrics[f"test/rate_{number}"] for number in range(1, levels + 1) if levels > 1]
    assert metrics["test/nll_iw3"] > 0
    assert "test/mutual_information" not in metrics
    if levels > 1:
        assert sum(rates) == pytest.approx(metrics["test/rate"], rel=1e-5)
        for name in ("usage_perplexity", "latent_information", "active_latents"):
            assert metrics[f"test/{name}_{levels}"] >= 0
    else:
        assert "test/rate_1" not in metrics


def test_a_loaded_model_has_the_same_codes(run):
    folder, config, _ = run
    model = dvae.load(folder)
    assert model.vae.num_latents == sum(config.model.sizes)
    images = torch.rand(3, 1, 28, 28).round()
    codes = model.encode(images)
    assert codes.shape == (3, model.vae.num_latents)
    assert model.reconstruct(images).shape == images.shape
    assert model.sample(2).shape == (2, 1, 28, 28)


@pytest.mark.parametrize("what", ["prior", "traversal"])
def test_pictures(run, what, tmp_path, data_dir):
    folder, *_ = run
    checkpoint = f"checkpoint={folder / 'checkpoints' / 'best.ckpt'}"
    own = [checkpoint, f"data_dir={data_dir}", f"output_dir={tmp_path}", "device=cpu"]
    picture = sample(check(SampleConfig, compose("sample", [*own, f"what={what}", "num_images=2"])))
    assert picture.is_file()


def test_codes_are_written_and_read_again(run, tmp_path, data_dir):
    folder, config, _ = run
    checkpoint = f"checkpoint={folder / 'checkpoints' / 'best.ckpt'}"
    own = [checkpoint, f"data_dir={data_dir}", f"output_dir={tmp_path}", "device=cpu"]
    choices = ["splits=[val]", "data.validation=100", "logits=true", "codes=sample"]
    [path] = encode(check(EncodeConfig, compose("encode", [*own, *choices])))
    codes = np.load(path)
    assert codes.shape == (100, sum(config.model.sizes))
    assert np.load(tmp_path / "val.logits.npy").shape == (*codes.shape, 4)
    picture = ["what=decode", f"codes={path}", "num_images=4"]
    assert sample(check(SampleConfig, compose("sample", [*own, *picture]))).is_file()
    assert json.loads((tmp_path / "val.json").read_text())["num_categories"] == 4


def test_a_run_is_resumed(run, tmp_path, data_dir):
    folder, config, _ = run
    values = config.model_dump()
    values["trainer"] = values["trainer"] | {"max_epochs": 2}
    values["paths"] = {"data_dir": str(data_dir), "output_dir": str(tmp_path)}
    values["resume"] = str(folder / "checkpoints" / "last.ckpt")
    train(check(VAEConfig, values))
    last = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == 4


@pytest.mark.parametrize("model", MODELS)
def test_what_needs_all_latents_at_once_is_refused(model, make_config):
    with pytest.raises(UserError, match=r"expected .* model\.(groups|levels)="):
        make_config(*SMALL, *MODELS[model], "estimator=carms")


@pytest.mark.parametrize("model", MODELS)
def test_logits_of_splits_learn(model, make_config):
    """Each parameter of the encoder gets a gradient."""
    vae = make_config(*SMALL, *MODELS[model], "logits=catnat", "data.size=8").build_model()
    objective = ELBO(2, None)
    objective.training_pass(vae, torch.rand(8, 1, 8, 8).round(), torch.tensor(1.0))[0].backward()
    for name, parameter in vae.encoder.named_parameters():
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("name", sorted(n for n in ESTIMATORS if not ESTIMATORS[n].coupled))
@pytest.mark.parametrize("model", MODELS)
def test_every_estimator_trains(name, model, make_config):
    """Each parameter gets a finite gradient."""
    without = [] if ESTIMATORS[name].uses_temperature else ["temperature=none"]
    # At most 16,384 codes for `exact`.
    few = ["model.num_categories=2", "objective.num_samples=1", "data.size=8"]
    config = make_config(*SMALL, *MODELS[model], *few, f"estimator={name}", *without)
    torch.manual_seed(0)
    vae = config.build_model()
    objective = config.objective.build()
    optimizer = torch.optim.Adam(vae.parameters(), 0.01)
    for _ in range(2):
        images = torch.rand(8, 1, 8, 8).round()
        optimizer.zero_grad()
        terms = objective.training_pass(vae, images, torch.tensor(1.0))
        terms[0].backward()
        optimizer.step()
        assert torch.stack([term.detach() for term in terms]).isfinite().all()
    for key, parameter in vae.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key


@pytest.mark.parametrize("model", ["groups", "bottom_up"])
def test_many_samples(model, make_config):
    """IWAE and VIMCO with m = 50."""
    for objective in ("iwae", "vimco"):
        choices = [f"objective={objective}", "objective.num_samples=50", "data.size=8"]
        config = make_config(*SMALL, *MODELS[model], *choices)
        vae, images = config.build_model(), torch.rand(4, 1, 8, 8).round()
        loss, *_ = config.objective.build().training_pass(vae, images, torch.tensor(1.0))
        loss.backward()
        assert loss.isfinite()


def test_a_compiled_pass_has_the_loss_of_a_plain_one(make_config):
    config = make_config(*SMALL, *MODELS["bottom_up"], "data.size=8")
    vae, images = config.build_model(), torch.rand(4, 1, 8, 8).round()
    training_pass = config.objective.build().training_pass
    compiled = torch.compile(training_pass, backend="eager", fullgraph=True)
    losses = []
    for compute in (training_pass, compiled):
        torch.manual_seed(0)
        losses.append(compute(vae, images, torch.tensor(1.0))[0].item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_a_traversal_draws_the_levels_below_anew(make_config):
    vae = make_config(*SMALL, "model.levels=[4,2]").build_model().eval()
    with torch.no_grad():
        for parameter in vae.prior.parameters():
            parameter += torch.randn_like(parameter)
    codes = torch.zeros(1, 6, dtype=torch.int64)
    steps = traversal_codes(vae, codes, torch.Generator().manual_seed(0))
    assert steps.shape == (1, 6, 4, 6)
    for n in range(6):
        assert steps[0, n, :, n].tolist() == [0, 1, 2, 3]
    # The top level has the first two latents, and the bottom level the others.
    assert (steps[0, 0, :, 1] == 0).all()
    assert steps[0, :2, :, 2:].any()
    below = steps[0, 2:, :, :2]
    assert (below == 0).all(), "levels above stay"
    # The same noise for all steps: where the top level is the same, so are the levels below.
    assert torch.equal(steps[0, 0, 0], steps[0, 1, 0])


def test_samples_of_the_prior_follow_its_probabilities(make_config):
    vae = make_config("model.num_categories=2", "model.levels=[2,1,1]").build_model().eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in vae.prior.parameters():
            parameter += 0.5 * torch.randn(parameter.shape, generator=generator)
        codes = vae.prior.sample(20_000, generator=generator)
        p = vae.prior.log_prob(torch.cartesian_prod(*[torch.arange(2)] * 4)).exp()
    counts = torch.bincount((codes * torch.tensor([8, 4, 2, 1])).sum(-1), minlength=16)
    deviations = (counts - 20_000 * p) / (20_000 * p * (1 - p)).sqrt()
    # Of 16 codes: a false alarm about once in 1,000 seeds.
    assert deviations.abs().max() < 4.2
    changed = vae.prior.complete(codes, 2, gumbel_noise((20_000, 4, 2)))
    assert torch.equal(changed[:, 0], codes[:, 0])
    assert not torch.equal(changed, codes)


def test_convolutions_have_groups_and_levels(make_config):
    for choices in (["model.groups=2"], ["model.levels=[4,2]", "model.centered=true"]):
        config = make_config("model=conv", "model.num_latents=4", "data.size=12", *choices)
        vae, images = config.build_model(), torch.rand(2, 1, 12, 12).round()
        loss, *_ = config.objective.build().training_pass(vae, images, torch.tensor(1.0))
        loss.backward()
        assert loss.isfinite()


def test_free_bits_stop_the_gradient_of_small_rates(make_config):
    config = make_config(*SMALL, "model.levels=2", "objective.free_bits=1000.0", "prior=learned")
    vae, images = config.build_model(), to_unit(torch.randint(256, (4, 1, 28, 28)).byte())
    objective = config.objective.build()
    output = vae(images, 2)
    loss = objective(vae, output, 1.0)
    assert torch.allclose(loss, output.distortion.mean() + 2000)
    loss.backward()
    assert all(p.grad is None or not p.grad.any() for p in vae.prior.parameters())
    # Rates above it count as they are.
    tiny, plain = ELBO(2, None, 1e-9), ELBO(2, None)
    assert torch.allclose(tiny(vae, output, 1.0), plain(vae, output, 1.0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["model.groups=3"], "model.groups: expected a divisor of 20 latents, found 3"),
        (["model.groups=2", "model.levels=2"], "model.groups: expected 1 with model.levels=2"),
        (["model=resnet", "model.groups=2"], "model.groups: expected a divisor of 7 × 7 latents"),
        (["model.levels=[]"], "model.levels: expected at least one level"),
        (["model.code_map=hypercube"], "model.num_categories: expected a power of 2"),
        (["model.levels=2", "callbacks.gradient_snr=10"], "callbacks.gradient_snr: expected null"),
        (["objective=iwae", "objective.free_bits=1.0"], "objective.free_bits: expected 0"),
        (["model.levels=2", "estimator=exact"], "expected at most 16,384 codes"),
        (["model=resnet", "model.levels=5"], "model.levels: expected at most 4, as each halves"),
        (
            ["model=resnet", "model.groups=7", "model.levels=2"],
            "model.groups: expected 1 with model.levels=2",
        ),
    ],
)
def test_impossible_options_are_refused(options, message, make_config):
    with pytest.raises(UserError, match=message.replace("(", r"\(")):
        make_config(*options)


@pytest.mark.parametrize(
    "name", ["maddison2017", "maddison2017_binary", "maddison2017_two_layers", "maddison2017_vimco"]
)
def test_experiments_train(name, make_config):
    config = make_config(f"experiment={name}")
    vae, images = config.build_model(), torch.rand(2, 1, 28, 28).round()
    loss, *_ = config.objective.build().training_pass(vae, images, torch.tensor(1.0))
    assert loss.isfinite()
    assert vae.encoder(images) is not None
