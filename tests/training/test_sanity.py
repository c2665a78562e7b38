"""Losses and gradients that are not finite, and models that learn nothing."""

import json
import logging
import math

import pytest
import torch

from dvae.commands.train import train
from dvae.errors import DivergedError
from dvae.models.usage import CodeUsage
from dvae.tasks.vae.module import VAEModule
from dvae.training.callbacks import Concerns

SMALL = ["debug=fast", "model.hidden=[16]", "data.eval_batch_size=50", "model.num_latents=3"]


def _break(monkeypatch, steps, value, *, gradient=False):
    """Makes the losses of some steps, or only their gradients, NaN or infinite."""
    loss_of = VAEModule.training_loss

    def broken(self, batch):
        loss, curves = loss_of(self, batch)
        if self.global_step not in steps:
            return loss, curves
        if gradient:
            # Adds 0 to the loss, but its gradient overflows.
            return loss + (loss - loss.detach()) * value * value, curves
        return loss * value, {**curves, "rate": curves["rate"] * value}

    monkeypatch.setattr(VAEModule, "training_loss", broken)


LONGER = ["trainer.limit_train_batches=8", "trainer.steps_per_call=4", "trainer.max_epochs=2"]


def test_a_loss_that_is_not_finite_ends_the_run(make_config, tmp_path, monkeypatch):
    _break(monkeypatch, [10], math.nan)
    with pytest.raises(DivergedError) as caught:
        train(make_config(*SMALL, *LONGER))
    line = str(caught.value)
    assert line.startswith("step 10: expected a finite loss, found loss nan, distortion ")
    assert "rate nan" in line
    assert f"last good checkpoint is {tmp_path}" in line
    content = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert content["global_step"] == 8
    assert all(value.isfinite().all() for value in content["state_dict"].values())


def test_a_gradient_that_is_not_finite_ends_the_run(make_config, monkeypatch):
    _break(monkeypatch, [2], 1e30, gradient=True)
    with pytest.raises(DivergedError, match="steps 0 to 2: expected finite weights"):
        train(make_config(*SMALL, *LONGER, "trainer.steps_per_call=3"))


@pytest.mark.parametrize("optimizer", ["adamw", "radam", "sgd"])
def test_steps_that_are_not_finite_can_be_skipped(make_config, tmp_path, monkeypatch, optimizer):
    _break(monkeypatch, [3, 10], math.nan)
    options = ["on_nonfinite=skip", f"optimizer={optimizer}", "trainer.log_every=1"]
    metrics = train(make_config(*SMALL, *LONGER, *options))
    assert all(math.isfinite(value) for value in metrics.values())
    content = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert content["global_step"] == 16
    assert content["skipped"] == 2


def test_skipping_nothing_changes_nothing(make_config, tmp_path):
    results = [
        train(make_config(*SMALL, *LONGER, f"on_nonfinite={choice}", output=tmp_path / choice))
        for choice in ("stop", "skip")
    ]
    assert results[0] == results[1]


def test_a_run_that_skips_most_steps_ends(make_config, monkeypatch):
    _break(monkeypatch, range(1000), math.nan)
    options = ["trainer.limit_train_batches=120", "on_nonfinite=skip"]
    with pytest.raises(DivergedError, match="step 110: expected finite gradients in most steps"):
        train(make_config(*SMALL, *options))


class _Data:
    """Validation images of two kinds, and their mean."""

    def __init__(self):
        self.all = torch.zeros(10, 1, 28, 28, dtype=torch.uint8)
        self.all[:5, :, :14] = 255

    def images(self, split):
        return self.all

    def pixel_mean(self):
        return self.all.float().mean(0) / 255


def _concerns(small_vae, rate, distortion, used=4):
    module = VAEModule(small_vae)
    codes = torch.arange(80).unsqueeze(1).expand(-1, 3) % used
    logits = 10 * torch.nn.functional.one_hot(codes, 4).float()
    module.usage = CodeUsage(3, 4)
    module.usage.update(logits, codes)
    return set(module.concerns({"val/rate": rate, "val/distortion": distortion}, _Data()))


def test_codes_without_information_are_reported(small_vae):
    ceiling, mean_image = 3 * math.log(4), 392 * math.log(2)
    assert _concerns(small_vae, 0.5 * ceiling, 100.0) == set()
    assert _concerns(small_vae, 0.01, mean_image) == {"collapsed posterior"}
    assert _concerns(small_vae, 0.99 * ceiling, mean_image) == {"rate without information"}
    # A full rate is fine if it carries information.
    assert _concerns(small_vae, 0.99 * ceiling, 0.8 * mean_image) == set()
    assert _concerns(small_vae, 1.0, 100.0, used=1) == {"dead categories"}
    assert _concerns(small_vae, 1.0, 100.0, used=3) == set()


def test_a_warning_is_written_once_to_log_and_tensorboard(make_config, tmp_path, caplog):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    # A heavy weight on the rate makes any posterior collapse.
    options = ["objective.beta=1e4", "trainer.limit_train_batches=100", "trainer.max_epochs=3"]
    with caplog.at_level(logging.WARNING, logger="dvae"):
        train(make_config(*SMALL, *options))
    found = [r.message for r in caplog.records if "collapsed posterior: the rate is" in r.message]
    assert len(found) == 1
    assert found[0].startswith("step ")
    events = EventAccumulator(str(tmp_path / "run"))
    events.Reload()
    assert "warnings/collapsed posterior/text_summary" in events.Tags()["tensors"]


def test_a_warning_is_repeated_after_its_condition_has_cleared(caplog):
    class Module(VAEModule):
        def __init__(self):
            pass

        answers = iter([{"a": "x"}, {"a": "x"}, {}, {"a": "x"}])

        def concerns(self, metrics, data):
            return next(self.answers)

    from types import SimpleNamespace

    trainer = SimpleNamespace(
        is_global_zero=True, callback_metrics={}, datamodule=None, global_step=300, logger=None
    )
    callback, module = Concerns(), Module()
    for _ in range(4):
        callback.on_validation_end(trainer, module)
    assert [record.message for record in caplog.records] == ["step 300: a: x"] * 2


def test_status_names_the_reason(make_config, tmp_path, monkeypatch):
    from dvae.runs.folder import run_in_folder

    _break(monkeypatch, [1], math.inf)
    with pytest.raises(DivergedError):
        run_in_folder(make_config(*SMALL), train)
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert status["state"] == "diverged"
    assert "step 1: expected a finite loss, found loss inf" in status["reason"]
