"""Checkpoints of earlier versions load, evaluate, sample and resume with the same results."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dvae.commands.checking import check
from dvae.commands.cli import compose
from dvae.commands.evaluate import evaluate
from dvae.commands.sample import sample
from dvae.tasks.options import EvaluateConfig, SampleConfig
from dvae.training.checkpoints import load_checkpoint
from dvae.training.migrations import migrate

FIXTURES = Path(__file__).parents[1] / "fixtures"
CHECKPOINTS = sorted(FIXTURES.rglob("*.ckpt"))
DRAWINGS = sorted(FIXTURES.rglob("*.npz"))


def _overrides(path, data_dir):
    return [f"checkpoint={path}", f"data_dir={data_dir}", "device=cpu"]


@pytest.mark.parametrize("path", CHECKPOINTS, ids=lambda path: f"{path.parent.name} {path.stem}")
def test_evaluations_repeat(path, data_dir, tmp_path):
    saved = json.loads(path.with_suffix(".json").read_text())
    policy = saved["trained"]["task"] == "policy"
    choices = ["num_episodes=5"] if policy else ["num_samples=5", "data.validation=200"]
    values = compose(
        "evaluate",
        [
            *_overrides(path, data_dir),
            *choices,
            f"split={saved['split']}",
            f"output={tmp_path / 'm.json'}",
            "progress_bar=false",
        ],
    )
    metrics = evaluate(check(EvaluateConfig, values))
    # There may be further metrics by now.
    repeated = {name: metrics[name] for name in saved["metrics"]}
    assert repeated == pytest.approx(saved["metrics"], rel=1e-6, abs=1e-6)
    written = json.loads((tmp_path / "m.json").read_text())
    for name, column in saved["latents"].items():
        assert written["latents"][name] == pytest.approx(column, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("path", DRAWINGS, ids=lambda path: f"{path.parent.name} {path.stem}")
def test_samples_repeat(path, data_dir, tmp_path):
    name, what = path.stem.split(".")
    checkpoint = path.with_name(f"{name}.ckpt")
    counts = {"reconstructions": 3, "traversal": 3, "interpolation": 3}
    few = [f"num_images={counts[what]}"] if what in counts else []
    own = [f"what={what}", f"output_dir={tmp_path}", *few]
    values = compose("sample", [*_overrides(checkpoint, data_dir), *own])
    picture = sample(check(SampleConfig, values))
    codes = np.load(picture.with_suffix(".npz"))["codes"]
    assert (codes == np.load(path)["codes"]).all()
    if picture.suffix == ".png":
        found, expected = (
            np.asarray(Image.open(file), dtype=int) for file in (picture, path.with_suffix(".png"))
        )
        assert np.abs(found - expected).max() <= 1


@pytest.mark.parametrize("path", CHECKPOINTS, ids=lambda path: f"{path.parent.name} {path.stem}")
def test_runs_are_resumed(path, data_dir, tmp_path, monkeypatch):
    """Each checkpoint resumes with its own configuration, for one more epoch."""
    from dvae.commands.train import train
    from dvae.tasks import parse_run

    content = load_checkpoint(path)
    values = migrate(content["config"])
    values["paths"] = {"data_dir": str(data_dir), "output_dir": str(tmp_path)}
    values["trainer"] = values["trainer"] | {"max_epochs": values["trainer"]["max_epochs"] + 1}
    values["resume"] = str(path)
    train(parse_run(values))
    last = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == 2 * content["global_step"]


def test_current_configurations_stay_unchanged(make_config):
    for options in (["estimator=rloo"], ["estimator=gumbel_rao"], []):
        values = make_config(*options).model_dump()
        assert migrate(values) == values
