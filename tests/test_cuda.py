"""What runs on a CPU also runs on a GPU, and metrics are the same on both."""

import math

import numpy as np
import pytest
import torch

from dvae.commands.checking import check
from dvae.commands.cli import compose
from dvae.commands.encode import encode
from dvae.commands.evaluate import evaluate
from dvae.commands.sample import sample
from dvae.commands.train import train
from dvae.data import module as data_module
from dvae.distributions import one_hot
from dvae.estimators import ESTIMATORS
from dvae.layers import CategoricalLayer
from dvae.tasks.options import EncodeConfig, EvaluateConfig, SampleConfig
from dvae.training.checkpoints import load_checkpoint

pytestmark = pytest.mark.cuda

SMALL = ["debug=fast", "data.eval_batch_size=50", "trainer.accelerator=gpu"]
CODES = ["model.hidden=[16]", "model.num_latents=3", "model.num_categories=4"]
KINDS = {
    "catnat": [*CODES, "logits=catnat"],
    "softmax": [*CODES, "logits=softmax"],
    "averages": [*CODES, "trainer.average=0.9", "trainer.gradient_clip=1"],
    "radam": [*CODES, "optimizer=radam"],
    "sgd": [*CODES, "optimizer=sgd", "on_nonfinite=skip"],
    "mixed precision": [*CODES, "precision=16"],
    "bf16": [*CODES, "precision=bf16"],
    "compiled": [*CODES, "compile=true"],
    "compiled, bf16": [*CODES, "compile=true", "precision=bf16"],
    "compiled, by the fastest settings": [*CODES, "fast=true", "compile=true"],
    "convolutions": ["model=conv", "model.hidden=8", "data.shift=1"],
    "convolutions, compiled": ["model=conv", "model.hidden=8", "compile=true", "precision=bf16"],
    "grid": ["model=resnet", "model.num_categories=8", "model.channels=8", "prior=autoregressive"],
    "groups": [*CODES, "model.groups=3", "prior=autoregressive", "compile=true"],
    "levels": [*CODES, "model.levels=2", "objective=iwae", "prior=learned", "compile=true"],
    "vimco": [*CODES, "objective=vimco"],
    "structured prediction": ["task=structured_prediction"],
    "semi-supervised": ["task=semi_supervised"],
}


@pytest.mark.parametrize("kind", KINDS)
def test_runs_of_every_kind(make_config, kind):
    metrics = train(make_config(*SMALL, *KINDS[kind]))
    assert metrics
    assert all(math.isfinite(value) for value in metrics.values())


@pytest.mark.parametrize("compiled", ["false", "true"])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_estimators(make_config, name, compiled):
    options = [f"estimator={name}", f"compile={compiled}", "objective.num_samples=1"]
    if not ESTIMATORS[name].uses_temperature:
        options.append("temperature=none")
    metrics = train(make_config(*SMALL, *CODES, *options))
    assert math.isfinite(metrics["val/elbo"])


@pytest.mark.parametrize("compiled", ["false", "true"])
@pytest.mark.parametrize("resident", [True, False])
def test_a_run_repeats_and_resumes(make_config, tmp_path, monkeypatch, compiled, resident):
    """Also with images that do not fit into the memory of the GPU, with the same numbers."""
    monkeypatch.setattr(data_module, "_fits", lambda *args: resident)
    options = [*SMALL, *CODES, f"compile={compiled}", "trainer.limit_train_batches=5"]
    # The schedules of the shorter run must not end earlier.
    options += ["temperature=constant", "optimizer.schedule=constant", "optimizer.warmup=0"]

    def weights(name, *further):
        train(make_config(*options, *further, output=tmp_path / name))
        return load_checkpoint(tmp_path / name / "checkpoints" / "last.ckpt")["state_dict"]

    whole, again = (weights(name, "trainer.max_epochs=2") for name in ("whole", "again"))
    weights("part")
    last = tmp_path / "part" / "checkpoints" / "last.ckpt"
    resumed = weights("rest", "trainer.max_epochs=2", f"resume={last}")
    for name, weight in whole.items():
        assert torch.equal(weight, again[name]), name
        assert torch.equal(weight, resumed[name]), name


def test_metrics_and_codes_are_those_of_a_cpu(make_config, tmp_path, data_dir):
    train(make_config(*SMALL, *CODES, "trainer.limit_train_batches=100"))
    checkpoint = tmp_path / "run" / "checkpoints" / "best.ckpt"
    found = {}
    for device in ("cpu", "cuda"):
        own = [f"checkpoint={checkpoint}", f"data_dir={data_dir}", f"device={device}"]
        out = tmp_path / device
        values = compose("evaluate", [*own, "num_samples=5", f"output={out}.json"])
        metrics = evaluate(check(EvaluateConfig, values))
        values = compose("encode", [*own, "splits=[test]", f"output_dir={out}"])
        [codes] = encode(check(EncodeConfig, values))
        found[device] = metrics, np.load(codes)
        # Pictures are drawn on the device, with other numbers.
        assert sample(check(SampleConfig, compose("sample", [*own, f"output_dir={out}"]))).is_file()
    here, there = found.values()
    assert there[0] == pytest.approx(here[0], rel=1e-3, abs=1e-3)
    # Rounding may decide between two categories that are as probable as one another.
    assert (there[1] == here[1]).mean() > 0.999


@pytest.mark.parametrize("name", ESTIMATORS)
def test_codes_follow_the_probabilities(name):
    if ESTIMATORS[name].enumerates:
        pytest.skip("draws no codes")
    torch.manual_seed(0)
    logits = torch.tensor([[-1.0, 0.0, 1.5]], device="cuda")
    layer = CategoricalLayer(estimator=name).cuda()
    codes = layer.sample(logits.expand(20_000, 1, 3)).codes
    found = one_hot(codes.flatten(), 3).double().mean(0)
    expected = logits[0].double().softmax(-1)
    error = (expected * (1 - expected) / codes.numel()).sqrt()
    assert ((found - expected).abs() < 4 * error).all()
