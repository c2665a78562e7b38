"""Interrupts sweeps, runs and searches that are started from the command line."""

import csv
import json
import os
import signal
import time
from types import SimpleNamespace

import pytest
import torch

from dvae.errors import PrunedError
from dvae.training.resilience import Pruning
from tests.programs import Program

SMALL = [
    "model.hidden=[8]",
    "model.num_latents=2",
    "trainer.progress_bar=false",
    "trainer.accelerator=cpu",
    "data.validation=100",
    "data.batch_size=20",
    "data.eval_batch_size=100",
    "trainer.limit_train_batches=20",
    "trainer.limit_eval_batches=1",
    "trainer.max_epochs=12",
    "callbacks=none",
    "test_samples=0",
]
SWEEP = ["hydra.mode=MULTIRUN", "optimizer.lr=0.005,1e30", "seed=0,1"]


@pytest.fixture(scope="module")
def start(data_dir):
    """Starts the training script in a new process."""

    def start(*arguments):
        return Program("train.py", f"paths.data_dir={data_dir}", *SMALL, *arguments)

    return start


@pytest.fixture(scope="module")
def undisturbed(start, tmp_path_factory):
    """The folder and the output of an uninterrupted sweep; half of its runs diverge."""
    folder = tmp_path_factory.mktemp("undisturbed")
    return folder, _finish(start(*SWEEP, f"hydra.sweep.dir={folder}"))


def _finish(program):
    code, output, errors = program.finish()
    assert code == 0, output + errors
    return output + errors


def _table(folder):
    """The table without the durations, which may differ."""
    with (folder / "sweep.csv").open() as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def _wait_for(path, program, seconds=60):
    end = time.monotonic() + seconds
    while not path.exists():
        assert program.code is None, program.texts
        assert time.monotonic() < end, f"{path} was not written"
        time.sleep(0.005)


def test_a_diverging_run_does_not_stop_the_others(undisturbed):
    folder, output = undisturbed
    rows = _table(folder)
    assert [row["state"] for row in rows] == ["finished", "finished", "diverged", "diverged"]
    assert all("expected a finite loss, found loss" in row["reason"] for row in rows[2:])
    assert rows[0]["val/elbo"] != rows[1]["val/elbo"]
    assert (folder / "sweep.png").exists()
    assert "Settings, ranked by val/elbo" in output
    assert "optimizer.lr=0.005" in output.split("its command")[1].splitlines()[0]
    # A name holds only the settings that differ, since TensorBoard shows it.
    assert rows[0]["run"] == "optimizer.lr=0.005,seed=0"


def test_finished_runs_log_hyperparameters(undisturbed):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for seed in (0, 1):
        events = EventAccumulator(str(undisturbed[0] / f"optimizer.lr=0.005,seed={seed}"))
        events.Reload()
        assert any("_hparams_" in tag for tag in events.summary_metadata)


def test_a_killed_sweep_resumes_and_ends_with_the_same_table(undisturbed, start, tmp_path):
    arguments = [*SWEEP, f"hydra.sweep.dir={tmp_path}"]
    program = start(*arguments)
    second = tmp_path / "optimizer.lr=0.005,seed=1"
    _wait_for(second / "checkpoints" / "last.ckpt", program)
    program.signal(signal.SIGKILL)
    program.finish()
    assert not (second / "metrics.json").exists(), "the run finished before the kill"
    output = _finish(start(*arguments))
    assert "seed=0: already finished" in output
    assert "last.ckpt" in (second / "config.yaml").read_text()
    assert _table(tmp_path) == _table(undisturbed[0])


def test_a_run_saves_and_exits_on_a_signal(start, tmp_path):
    program = start(f"hydra.run.dir={tmp_path}", "trainer.max_epochs=1000")
    _wait_for(tmp_path / "checkpoints" / "last.ckpt", program)
    program.signal(signal.SIGTERM)
    code, *texts = program.finish()
    assert code == 128 + signal.SIGTERM, texts
    assert json.loads((tmp_path / "status.json").read_text())["state"] == "interrupted"
    content = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    # It may stop in the middle of an epoch, but between two calls of 10 steps.
    assert 0 < content["global_step"] < 20 * 1000
    assert content["global_step"] % 10 == 0


def test_a_preempted_job_is_requeued_and_resumes(undisturbed, start, tmp_path):
    pytest.importorskip("submitit")
    folder = tmp_path / "seed=0"
    program = start(
        "hydra.mode=MULTIRUN",
        "hydra/launcher=submitit_local",
        f"hydra.sweep.dir={tmp_path}",
        "optimizer.lr=0.005",
        "seed=range(1)",
    )
    _wait_for(folder / "checkpoints" / "last.ckpt", program)
    status = json.loads((folder / "status.json").read_text())
    os.kill(status["pid"], signal.SIGUSR2)
    _finish(program)
    logs = "".join(path.read_text() for path in (tmp_path / ".submitit").rglob("*_log.*"))
    assert "Requeued job" in logs
    assert json.loads((folder / "status.json").read_text())["pid"] != status["pid"]
    other = undisturbed[0] / "optimizer.lr=0.005,seed=0"
    metrics = [json.loads((f / "metrics.json").read_text()) for f in (folder, other)]
    assert metrics[0] == metrics[1]


def test_the_slurm_launcher_signals_and_requeues_jobs():
    pytest.importorskip("submitit")
    asked = ["hydra/launcher=slurm", "--cfg", "hydra", "-p", "hydra.launcher"]
    _, output, _ = Program("train.py", *asked).finish()
    assert "submitit_launcher.SlurmLauncher" in output
    assert "signal_delay_s: 120" in output
    assert "max_num_timeout: 10" in output


def test_a_search_resumes(start, tmp_path):
    """Two trials together, then a third after a restart, which does not repeat the first two."""
    optuna = pytest.importorskip("optuna")
    pytest.importorskip("joblib")
    arguments = [
        "+sweep=optuna",
        f"hydra.sweep.dir={tmp_path}",
        "estimator=gumbel_softmax",
        "optimizer.lr=choice(0.005,1e30)",
        "trainer.max_epochs=2",
    ]
    together = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.sweeper.batch=2"]
    for trials, launcher in ((2, together), (3, [])):
        _finish(start(*arguments, f"hydra.sweeper.trials={trials}", *launcher))
        study = optuna.load_study(study_name=None, storage=f"sqlite:///{tmp_path}/study.db")
        assert len(study.trials) == trials
        assert len(_table(tmp_path)) == trials
    states = {"finished": "COMPLETE", "diverged": "PRUNED", "pruned": "PRUNED"}
    assert sorted(states[row["state"]] for row in _table(tmp_path)) == sorted(
        trial.state.name for trial in study.trials
    )
    assert (tmp_path / "sweep.png").exists()


def test_a_bad_trial_is_pruned():
    optuna = pytest.importorskip("optuna")
    study = optuna.create_study(direction="maximize", pruner=optuna.pruners.MedianPruner(2))

    def report(trial, elbo):
        metrics = {"val/elbo": torch.tensor(elbo)}
        Pruning(trial, "val/elbo").on_validation_end(
            SimpleNamespace(callback_metrics=metrics, current_epoch=0), None
        )

    for elbo in (-100.0, -101.0):
        trial = study.ask()
        report(trial, elbo)
        study.tell(trial, elbo)
    report(study.ask(), -99.0)
    with pytest.raises(PrunedError, match="-150.00 after epoch 1"):
        report(study.ask(), -150.0)


@pytest.mark.ray
def test_ray_runs_a_sweep(start, tmp_path):
    arguments = [
        "hydra.mode=MULTIRUN",
        "hydra/launcher=ray",
        f"hydra.sweep.dir={tmp_path}",
        "seed=0,1",
    ]
    _finish(start(*arguments, "trainer.max_epochs=1"))
    assert [row["state"] for row in _table(tmp_path)] == ["finished", "finished"]
