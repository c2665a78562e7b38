"""The program from Python: `dvae.compose`, `dvae.train`, `dvae.load`."""

import json
import logging
import os
import random
import signal
import sys
import warnings
from pathlib import Path

import hydra
import matplotlib as mpl
import numpy as np
import pytest
import rich
import torch
import torch._dynamo
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobRuntime
from hydra.version import VersionBase
from omegaconf import OmegaConf

import dvae
from dvae.commands.cli import CONFIGS, compose
from dvae.data.binarize import to_unit
from dvae.distributions import one_hot
from dvae.options import parse
from dvae.tasks import TASKS, find_task
from dvae.tasks.vae.module import VAEModule
from dvae.training.config import RunConfig

COMPILER = ("recompile_limit", "trace_autograd_ops")
LOGGERS = ("pytorch_lightning", "lightning_fabric", "torch.utils.cpp_extension")
SMALL = [
    "debug=fast",
    "model.hidden=[16]",
    "model.num_latents=3",
    "model.num_categories=4",
    "data.eval_batch_size=50",
    "trainer.accelerator=cpu",
    "trainer.progress_bar=false",
]


@pytest.fixture(scope="module")
def config(tmp_path_factory, data_dir):
    folder = tmp_path_factory.mktemp("api") / "run"
    own = [f"hydra.run.dir={folder}", f"paths.data_dir={data_dir}"]
    return dvae.compose([*SMALL, *own, "trainer.progress_bar=true"])


def _state():
    """What a run may change in a process."""
    return {
        "random": random.getstate(),
        "numpy": str(np.random.get_state()),
        "torch": torch.get_rng_state().tolist(),
        "warnings": list(warnings.filters),
        "levels": [logging.getLogger(name).level for name in LOGGERS],
        "environment": dict(os.environ),
        "arguments": list(sys.argv),
        "signals": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "backend": dict.__getitem__(mpl.rcParams, "backend"),
        "threads": torch.get_num_threads(),
        "denormal": sys.float_info.min / 2,
        "gradients": torch.is_grad_enabled(),
        "dtype": torch.get_default_dtype(),
        "compiler": {name: getattr(torch._dynamo.config, name, None) for name in COMPILER},
        "console": rich.get_console().width,
        "folder": Path.cwd(),
        "hydra": {
            kind: Singleton._instances.get(kind)
            for kind in (GlobalHydra, HydraConfig, JobRuntime, VersionBase)
        },
    }


@pytest.fixture
def own_program():
    """Settings of a user's own program, all unlike the defaults."""
    console = rich.get_console()
    before, width = _state(), console._width
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.INFO)
    console.width = 77
    os.environ["PL_GLOBAL_SEED"] = "5"
    handler = signal.signal(signal.SIGTERM, lambda number, frame: None)
    torch.set_default_dtype(torch.float64)
    torch.set_grad_enabled(False)
    with hydra.initialize_config_dir(str(CONFIGS), version_base="1.2"):
        yield
    torch.set_default_dtype(torch.float32)
    torch.set_grad_enabled(True)
    signal.signal(signal.SIGTERM, handler)
    os.environ.pop("PL_GLOBAL_SEED")
    rich.get_console()._width = width
    for name, level in zip(LOGGERS, before["levels"], strict=True):
        logging.getLogger(name).setLevel(level)


def _same(before, after):
    return [name for name in before if before[name] != after[name]]


def test_a_configuration_is_composed_and_checked(config):
    assert isinstance(config, RunConfig)
    assert config.model.num_latents == 3
    assert config.overrides[0] == "debug=fast"
    assert not [item for item in config.overrides if item.startswith("hydra")]
    assert Path(config.paths.output_dir).name == "run"


def test_every_configuration_has_a_new_folder():
    folders = [Path(dvae.compose().paths.output_dir) for _ in range(2)]
    assert folders[0] != folders[1]
    assert not folders[0].exists()
    assert {folder.parent.parts[-2:] for folder in folders} == {("outputs", "runs")}
    # Also for the function that the commands use.
    assert compose("train", [])["paths"]["output_dir"]


def test_own_configurations_are_found(tmp_path):
    own = tmp_path / "experiment" / "tiny.yaml"
    own.parent.mkdir()
    own.write_text("# @package _global_\nmodel:\n  num_latents: 7\n")
    overrides = [f"hydra.searchpath=[file://{tmp_path}]", "experiment=tiny"]
    assert dvae.compose(overrides).model.num_latents == 7


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["optimizer.lrr=1"], "optimizer.lrr: no such key; did you mean optimizer.lr?"),
        (["temperature=0.5"], "temperature: expected one of constant, cosine, expon"),
        (["estimator=gumbel_sotfmax"], "found 'gumbel_sotfmax'; did you mean gumbel_softmax?"),
        (["model.hidden=[512"], "no viable alternative at input '[512'"),
        (["temperature.minimum=0"], "temperature.minimum: expected greater than 0, found 0"),
        (["resume=none"], "resume: expected a run's folder or a checkpoint, found nothing"),
        ("seed=1", """overrides: expected a list such as ["seed=1"], found 'seed=1'"""),
        ([("seed", 1)], "overrides: expected a list such as"),
    ],
)
def test_mistakes_are_errors_of_one_line(overrides, line):
    before = _state()
    with pytest.raises(dvae.UserError) as caught:
        dvae.compose(overrides)
    assert line in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert _same(before, _state()) == []


def test_composing_changes_nothing_in_the_process(own_program):
    before = _state()
    dvae.compose(["seed=1"])
    assert _same(before, _state()) == []
    assert GlobalHydra.instance().is_initialized()
    # A user's resolvers keep their names.
    assert not any(OmegaConf.has_resolver(name) for name in ("root", "size", "tuned", "home"))


def test_a_run_returns_its_metrics_and_changes_nothing_in_the_process(config, own_program):
    before = _state()
    metrics = dvae.train(config)
    assert _same(before, _state()) == []
    folder = Path(config.paths.output_dir)
    assert metrics == json.loads((folder / "metrics.json").read_text())
    assert {"val/elbo", "test/elbo", "test/rate"} <= metrics.keys()
    assert json.loads((folder / "status.json").read_text())["state"] == "finished"
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["overrides"] == list(config.overrides)


def test_threads_that_start_in_a_run_do_not_flush_denormal_numbers(tmp_path, data_dir):
    own = [f"paths.output_dir={tmp_path}", f"paths.data_dir={data_dir}"]
    torch.set_flush_denormal(False)
    torch.set_num_threads(2)
    try:
        dvae.train(dvae.compose([*SMALL, *own, "model.hidden=[512]"]))
        denormal = torch.full((2**20,), 1e-310, dtype=torch.float64)
        assert (denormal * 1.0).count_nonzero() == len(denormal)
    finally:
        torch.set_num_threads(1)


def test_a_finished_run_is_not_repeated(config, capsys):
    first = dvae.train(config)
    assert dvae.train(config) == first
    assert "already finished" in capsys.readouterr().out


def test_the_command_line_resumes_a_run_from_python(config):
    """A run's folder says what it was made of."""
    dvae.train(config)
    more = dvae.compose([f"resume={config.paths.output_dir}", "trainer.max_epochs=2"])
    assert more.model == config.model
    assert more.paths == config.paths
    assert more.trainer.max_epochs == 2
    assert more.resume == str(Path(config.paths.output_dir) / "checkpoints" / "last.ckpt")


def test_the_numbers_are_those_of_the_command(config, make_config):
    from dvae.commands.train import train

    metrics = dvae.train(config)
    assert train(make_config(*SMALL)) == pytest.approx(metrics)


def test_what_cannot_be_trained_is_refused(config):
    with pytest.raises(dvae.UserError, match="config: expected what dvae.compose returns"):
        dvae.train(["seed=1"])
    with pytest.raises(dvae.UserError, match="trainer.devices: expected 1 in Python, found 2"):
        dvae.train(dvae.compose(["trainer=ddp"]))
    changed = dvae.compose([*SMALL, "seed=1", f"paths.output_dir={config.paths.output_dir}"])
    dvae.train(config)
    with pytest.raises(dvae.UserError, match="seed: expected 0, as in the run in .* found 1"):
        dvae.train(changed)


def test_an_interrupt_saves_and_a_second_call_continues(tmp_path, data_dir, monkeypatch):
    own = [f"paths.output_dir={tmp_path}", f"paths.data_dir={data_dir}"]
    config = dvae.compose([*SMALL, *own, "trainer.steps_per_call=1"])
    loss = VAEModule.training_loss

    def interrupted(module, batch):
        os.kill(os.getpid(), signal.SIGINT)
        return loss(module, batch)

    handlers = _state()["signals"]
    with monkeypatch.context() as patch:
        patch.setattr(VAEModule, "training_loss", interrupted)
        with pytest.raises(KeyboardInterrupt):
            dvae.train(config)
    assert _state()["signals"] == handlers
    assert json.loads((tmp_path / "status.json").read_text())["state"] == "interrupted"
    assert (tmp_path / "checkpoints" / "last.ckpt").is_file()
    assert dvae.train(config)["test/elbo"] < 0


def test_an_interrupt_outside_of_training_is_one_too(tmp_path, data_dir, monkeypatch):
    """There, Lightning exits with code 1 and leaves the signal ignored."""
    own = [f"paths.output_dir={tmp_path}", f"paths.data_dir={data_dir}"]

    def interrupted(module):
        raise KeyboardInterrupt

    monkeypatch.setattr(VAEModule, "on_test_epoch_start", interrupted)
    handlers = _state()["signals"]
    with pytest.raises(KeyboardInterrupt):
        dvae.train(dvae.compose([*SMALL, *own]))
    assert _state()["signals"] == handlers


# Models.


@pytest.fixture(scope="module")
def model(config):
    dvae.train(config)
    return dvae.load(config.paths.output_dir)


@pytest.fixture(scope="module")
def images(config):
    return config.data.build(config.paths.data_dir, 0).images("test")[:5]


def test_a_model_is_loaded_from_a_run_or_a_checkpoint(config, model):
    before = _state()
    checkpoint = Path(config.paths.output_dir) / "checkpoints" / "best.ckpt"
    again = dvae.load(str(checkpoint))
    assert _same(before, _state()) == []
    assert not again.training
    assert all(map(torch.equal, model.state_dict().values(), again.state_dict().values()))


def test_a_run_without_validation_has_its_last_checkpoint(config, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    last = Path(config.paths.output_dir) / "checkpoints" / "last.ckpt"
    (tmp_path / "checkpoints" / "last.ckpt").write_bytes(last.read_bytes())
    assert isinstance(dvae.load(tmp_path), VAEModule)


def test_encode_finds_the_most_probable_codes(model, images):
    codes = model.encode(images)
    assert codes.shape == (5, 3)
    assert codes.dtype == torch.int64
    assert torch.equal(codes, model.vae.encode(to_unit(images)).argmax(-1))
    assert torch.equal(codes, model.encode(to_unit(images)))
    assert torch.equal(codes, model.encode(images.numpy()))
    assert not model.decode(codes).requires_grad


def test_decode_takes_codes_of_any_leading_shape(model):
    codes = torch.randint(4, (2, 6, 3), generator=torch.Generator().manual_seed(0))
    decoded = model.decode(codes)
    assert decoded.shape == (2, 6, 1, 28, 28)
    assert 0 <= decoded.min() < decoded.max() <= 1
    assert torch.allclose(decoded[1, 2], model.decode(codes[1, 2]), atol=1e-6)
    assert torch.allclose(decoded, model.decode(one_hot(codes, 4, torch.float64)), atol=1e-6)
    assert torch.equal(decoded, model.decode(codes.to(torch.uint8)))
    relaxed = torch.full((1, 3, 4), 0.25)
    assert model.decode(relaxed).shape == (1, 1, 28, 28)


def test_samples_come_from_the_prior(model):
    drawn = [model.sample(6, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert drawn[0].shape == (6, 1, 28, 28)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    codes = model.vae.prior.sample(6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(drawn[0], model.decode(codes))


def test_reconstructions_are_decoded_codes(model, images):
    assert torch.equal(model.reconstruct(images), model.decode(model.encode(images)))


@pytest.mark.parametrize(
    ("method", "value", "line"),
    [
        ("encode", torch.zeros(28, 28), r"images: expected .* \(B, 1, 28, 28\), found \(28,"),
        ("encode", torch.zeros(2, 3, 28, 28), "images: expected shape"),
        ("encode", torch.full((1, 1, 28, 28), 255.0), r"values in \[0, 1\], found .* 255 to 255"),
        ("reconstruct", torch.full((1, 1, 28, 28), torch.nan), "found values from nan to nan"),
        ("decode", torch.zeros(2, 4, dtype=torch.int64), r"codes: expected shape \(..., 3\)"),
        ("decode", torch.zeros(2, 3), r"codes: expected shape \(..., 3, 4\) .* found \(2, 3"),
        ("decode", torch.tensor([[0, 4, -1]]), "categories from 0 to 3, found -1 to 4"),
    ],
)
def test_wrong_inputs_of_a_model_end_in_one_line(model, method, value, line):
    with pytest.raises(dvae.UserError, match=line):
        getattr(model, method)(value)


def test_wrong_files_are_refused(tmp_path, config):
    with pytest.raises(dvae.UserError, match="path: expected .* found nothing: none"):
        dvae.load("none")
    with pytest.raises(dvae.UserError, match="found a folder without one"):
        dvae.load(tmp_path)
    (tmp_path / "x.ckpt").write_text("x")
    with pytest.raises(dvae.UserError, match="checkpoint: expected a checkpoint of tensors"):
        dvae.load(tmp_path / "x.ckpt")


def test_lightnings_way_to_load_names_ours(config):
    checkpoint = Path(config.paths.output_dir) / "checkpoints" / "best.ckpt"
    with pytest.raises(dvae.UserError, match=r"VAEModule.load_from_checkpoint: expected dvae.load"):
        VAEModule.load_from_checkpoint(checkpoint)


# The models of the task prior are those of the task vae.
@pytest.mark.parametrize("name", sorted({*TASKS} - {"vae", "prior"}))
@pytest.mark.parametrize("method", ["encode", "decode", "sample", "reconstruct"])
def test_models_of_other_tasks_refuse_in_one_line(name, method):
    task, values = find_task(name), dvae.compose([f"task={name}"]).model_dump()
    module = task.restore(parse(task.stored, {k: values[k] for k in task.stored.model_fields}))
    line = f"{method}: expected a model of task=vae, found one of task={name}"
    with pytest.raises(dvae.UserError, match=line):
        getattr(module, method)(1)
