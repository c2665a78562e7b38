"""One run over two processes on the CPU."""

import json
from statistics import fmean, stdev
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hydra.types import RunMode
from PIL import Image

from dvae.commands.checking import check
from dvae.commands.cli import compose
from dvae.commands.evaluate import evaluate
from dvae.commands.train import train
from dvae.data.loader import BatchOrder
from dvae.errors import UserError
from dvae.tasks.options import EvaluateConfig
from dvae.tasks.policy.episodes import EpisodeData
from dvae.training.processes import check_processes
from tests.programs import Program

# The number of validation images is a multiple of neither batch size nor processes.
SMALL = [
    "model.hidden=[32]",
    "model.num_latents=4",
    "data.validation=1001",
    "data.eval_batch_size=250",
    "trainer.limit_eval_batches=5",
    "trainer.limit_train_batches=100",
    "trainer.max_epochs=2",
    "callbacks=none",
    "test_samples=0",
]


def _train(folder, data_dir, *overrides):
    """Trains with two processes; returns what was printed, and the metrics."""
    where = [f"hydra.run.dir={folder}", f"paths.data_dir={data_dir}", "trainer.accelerator=cpu"]
    quiet = "trainer.progress_bar=false"
    code, output, errors = Program("train.py", "trainer=ddp", *where, quiet, *overrides).finish()
    assert code == 0, errors
    return output + errors, json.loads((folder / "metrics.json").read_text())


def _evaluate(folder, data_dir):
    """The validation metrics of the best checkpoint, by one process."""
    overrides = [
        f"checkpoint={folder / 'checkpoints' / 'best.ckpt'}",
        f"data_dir={data_dir}",
        f"output={folder / 'm.json'}",
        "split=val",
        "device=cpu",
        "num_samples=0",
        "progress_bar=false",
    ]
    return evaluate(check(EvaluateConfig, compose("evaluate", overrides)))


@pytest.fixture(scope="module")
def run(tmp_path_factory, data_dir):
    """The folder of a run with two processes, and its metrics."""
    folder = tmp_path_factory.mktemp("ddp")
    printed, metrics = _train(folder, data_dir, *SMALL)
    # Only one process prints metrics.
    assert printed.count("val/elbo") == 2
    return folder, metrics


def test_one_set_of_files_is_written(run):
    names = {path.name for path in run[0].iterdir() if "tfevents" not in path.name}
    assert names == {
        ".hydra",
        ".lock",
        "checkpoints",
        "code_usage.png",
        "config.yaml",
        "environment.json",
        "hparams.yaml",
        "metrics.json",
        "reconstructions.png",
        "samples.png",
        "status.json",
    }
    assert {path.name for path in (run[0] / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    # The name of an events file contains the process that wrote it.
    writers = {path.name.split(".")[-2] for path in run[0].glob("*tfevents*")}
    assert len(writers) == 1


def test_each_validation_image_counts_once(run, data_dir):
    """One process evaluates the checkpoint to the same metrics as two processes together."""
    metrics = _evaluate(run[0], data_dir)
    assert metrics["val/elbo"] == pytest.approx(run[1]["val/elbo"], rel=1e-6)


def test_two_processes_learn_like_one(run, make_config, tmp_path):
    """Global batch and initial weights are the same, so only noise differs, as between seeds.

    Four runs of one process estimate this noise. The difference between a new run and their mean
    has standard error s·√(1 + 1/4) and a t distribution with 3 degrees of freedom: it exceeds 6
    standard errors in 1 of 100 cases. Seeds are fixed.
    """
    alone = [
        train(make_config(*SMALL, f"seed={seed}", output=tmp_path / str(seed)))["val/elbo"]
        for seed in range(4)
    ]
    scale = stdev(alone) * (1 + 1 / 4) ** 0.5
    assert scale < 3, "the noise would hide any difference"
    assert abs(run[1]["val/elbo"] - fmean(alone)) < 6 * scale


def test_processes_share_a_folder_of_images(tmp_path):
    """Averages over a grid of codes, too: one process evaluates the run to the same metrics."""
    root = tmp_path / "root"
    generator = np.random.default_rng(0)
    for number in range(90):
        path = root / ("val" if number % 3 else "train") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(256, size=(8, 8, 3), dtype=np.uint8)).save(path)
    data = ["data=folder", f"data.root={root}", "data.size=8", "data.eval_batch_size=7"]
    model = ["model=resnet", "model.channels=8", "model.num_categories=16"]
    options = ["likelihood=logistic_mixture", "trainer.average=0.9", "data.batch_size=10"]
    short = ["trainer.max_epochs=2", "test_samples=0"]
    folder, data_dir = tmp_path / "run", tmp_path / "data"
    printed, metrics = _train(folder, data_dir, *data, *model, *options, *short)
    assert printed.count("preparing 90 images") == 1
    found = _evaluate(folder, data_dir)
    assert found["val/elbo"] == pytest.approx(metrics["val/elbo"], rel=1e-6)


def test_each_image_is_seen_once_an_epoch_and_no_noise_twice():
    orders = [BatchOrder(96, 8, seed=3, shuffle=True, rank=rank, world_size=2) for rank in range(2)]
    seen = torch.cat([batch for order in orders for batch in order])
    assert seen.sort().values.tolist() == list(range(96))
    keys = [order.key(number) for order in orders for number in range(len(order))]
    assert len(set(keys)) == len(keys)
    assert [BatchOrder(100, 8, seed=3).key(number) for number in range(3)] == [
        (3, 0, number) for number in range(3)
    ]


def test_batch_size_is_a_multiple_of_the_processes(mnist):
    mnist(batch_size=128).check_processes(2)
    with pytest.raises(UserError, match="data.batch_size: expected a multiple of the 2 processes"):
        mnist(batch_size=129).check_processes(2)


def test_other_tasks_run_in_one_process():
    with pytest.raises(UserError, match="trainer.devices: expected 1 with this task, found 2"):
        EpisodeData(1, 2, 2).check_processes(2)


def _hydra(monkeypatch, mode, *overrides):
    about = SimpleNamespace(mode=mode, overrides=SimpleNamespace(hydra=overrides))
    hydra = SimpleNamespace(initialized=lambda: True, get=lambda: about)
    monkeypatch.setattr("dvae.training.processes.HydraConfig", hydra)
    for rank in ("RANK", "SLURM_PROCID"):
        monkeypatch.delenv(rank, raising=False)


def test_a_run_of_a_sweep_uses_one_process(make_config, monkeypatch):
    _hydra(monkeypatch, RunMode.MULTIRUN)
    with pytest.raises(UserError, match="trainer.devices: expected 1 in a sweep"):
        check_processes(make_config("trainer=ddp"))
    # A launcher may start several processes.
    monkeypatch.setenv("SLURM_PROCID", "0")
    check_processes(make_config("trainer=ddp"))


def test_processes_started_together_need_one_folder(make_config, monkeypatch):
    _hydra(monkeypatch, RunMode.RUN)
    check_processes(make_config("trainer=ddp"))
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(UserError, match="hydra.run.dir: expected one folder"):
        check_processes(make_config("trainer=ddp"))
    _hydra(monkeypatch, RunMode.RUN, "hydra.run.dir=here")
    monkeypatch.setenv("RANK", "1")
    check_processes(make_config("trainer=ddp"))
