"""Averaged weights: their recursion, where they are used, and that they change nothing else."""

import pytest
import torch
from pytorch_lightning.callbacks import Callback

from dvae.commands.checking import check
from dvae.commands.cli import compose
from dvae.commands.evaluate import evaluate
from dvae.commands.train import train
from dvae.tasks.options import EvaluateConfig

SMALL = [
    "debug=fast",
    "model.hidden=[8]",
    "model.num_latents=2",
    "data.validation=50",
    "trainer.limit_train_batches=12",
    "test_samples=0",
    "callbacks=none",
]


class _Recorder(Callback):
    """Keeps the weights after each call of the training step."""

    def __init__(self):
        self.weights = []

    def on_train_batch_end(self, trainer, pl_module, *args):
        state = pl_module.state_dict()
        self.weights.append({name: value.clone() for name, value in state.items()})


@pytest.fixture
def run(make_config, tmp_path):
    def make(name, *options):
        recorder = _Recorder()
        metrics = train(make_config(*SMALL, *options, output=tmp_path / name), [recorder])
        path = tmp_path / name / "checkpoints" / "last.ckpt"
        return metrics, torch.load(path, weights_only=True), recorder.weights

    return make


def test_the_checkpoint_holds_the_moving_average_and_the_trained_weights(run):
    _, content, weights = run("a", "trainer.average=0.6", "trainer.steps_per_call=1")
    assert len(weights) == 12
    name = "vae.encoder.encoder.head.weight"
    average = run("start", "optimizer.lr=1e-30", "trainer.limit_train_batches=1")[2][0][name]
    for step, state in enumerate(weights):
        decay = min(0.6, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * state[name]
    assert torch.allclose(content["state_dict"][name], average, atol=1e-6)
    assert torch.equal(content["trained_weights"][name], weights[-1][name])
    assert not torch.allclose(average, weights[-1][name], atol=1e-3), "control"
    # The temperature is that of the step, not an average.
    assert content["state_dict"]["vae.layer.temperature"] == weights[-1]["vae.layer.temperature"]


def test_training_is_the_same_with_and_without_averages(run):
    with_averages, without = run("a", "trainer.average=0.6"), run("b")
    trained = with_averages[1]["trained_weights"]
    assert len(trained) > 10
    assert all(
        torch.equal(value, without[1]["state_dict"][name]) for name, value in trained.items()
    )
    assert with_averages[0]["val/elbo"] != without[0]["val/elbo"]
    assert "trained_weights" not in without[1]


def test_validation_uses_the_averages(run, tmp_path, data_dir):
    """Whoever reads the checkpoint gets the metrics of the validation."""
    metrics, _, _ = run("a", "trainer.average=0.6")
    overrides = [
        f"checkpoint={tmp_path / 'a' / 'checkpoints' / 'best.ckpt'}",
        f"data_dir={data_dir}",
        f"output={tmp_path / 'm.json'}",
        "split=val",
        "num_samples=0",
        "device=cpu",
        "progress_bar=false",
    ]
    found = evaluate(check(EvaluateConfig, compose("evaluate", overrides)))
    assert found["val/elbo"] == pytest.approx(metrics["val/elbo"], rel=1e-6)


def test_steps_per_call_changes_no_average(run):
    one, many = (
        run(size, "trainer.average=0.6", f"trainer.steps_per_call={size}")[1] for size in "15"
    )
    for name, value in one["state_dict"].items():
        assert torch.equal(value, many["state_dict"][name]), name
