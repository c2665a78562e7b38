"""Sweeps go on after the death of a run, and leave neither threads nor files open."""

import csv
import gc
import json
import os
import subprocess
import sys
import threading
import time
import weakref
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from hydra.core.plugins import Plugins
from pytorch_lightning.callbacks import Callback

from dvae.commands.train import train
from dvae.errors import UserError
from dvae.runs.alive import identity, is_alive
from dvae.runs.folder import record, run_in_folder

# Stands for training: the run with seed 1 is killed in its first start.
SCRIPT = """
import json, os, signal
from pathlib import Path
from dvae.commands.cli import run
from dvae.files import write_json
from dvae.runs.folder import run_in_folder
from dvae.training.config import RunConfig

def train(config):
    folder = Path(config.paths.output_dir)
    (folder / "config.yaml").write_text(json.dumps(config.model_dump()))
    write_json(folder / "environment.json", {"overrides": [f"seed={config.seed}"]})
    if config.seed == 1 and not (folder / "started").exists():
        (folder / "started").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    metrics = {"val/elbo": -1.0 - config.seed, "threads": int(os.environ["OMP_NUM_THREADS"])}
    write_json(folder / "metrics.json", metrics)
    return metrics

run("train", RunConfig, lambda config: run_in_folder(config, train))
"""
SWEEP = ["-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "seed=0,1,2,3"]


def _sweep(folder):
    script = folder / "script.py"
    script.write_text(SCRIPT)
    env = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    return subprocess.run(
        [sys.executable, script, *SWEEP, f"hydra.sweep.dir={folder / 'sweep'}"],
        capture_output=True,
        text=True,
        env=env,
        timeout=300,
    )


def _states(folder):
    with (folder / "sweep" / "sweep.csv").open() as file:
        return [(row["state"], row["reason"]) for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """The folder of a sweep that is started twice, and what each start says."""
    pytest.importorskip("joblib")
    folder = tmp_path_factory.mktemp("killed")
    return folder, [(_sweep(folder), _states(folder)) for _ in range(2)]


def test_a_killed_job_does_not_end_the_others(killed):
    result, states = killed[1][0]
    assert result.returncode == 0, result.stderr
    assert [state for state, _ in states] == ["finished", "failed", "finished", "finished"]
    assert "the process has died (SIGKILL)" in states[1][1]
    assert "Traceback" not in result.stdout + result.stderr
    assert result.stdout.count("the process has died") == 2, "once in the log, once in the table"


def test_the_same_command_finishes_a_killed_job(killed):
    result, states = killed[1][1]
    assert result.returncode == 0
    assert "4 runs, 3 of which have ended" in result.stdout
    assert [state for state, _ in states] == ["finished"] * 4


def test_jobs_share_the_cores(killed):
    from joblib import cpu_count

    metrics = json.loads((killed[0] / "sweep" / "seed=0" / "metrics.json").read_text())
    assert metrics["threads"] == max(1, cpu_count() // 2)


@pytest.mark.parametrize("number", [0, "two", 1.5, True])
def test_a_wrong_number_of_jobs_is_refused(number):
    pytest.importorskip("joblib")
    with pytest.raises(UserError, match="hydra.launcher.n_jobs: expected a number of jobs, or -1"):
        _plugin("joblib.JoblibLauncher")(n_jobs=number)._count()


def _plugin(name):
    found = {f"{kind.__module__}.{kind.__name__}": kind for kind in Plugins.instance().discover()}
    return found[f"hydra_plugins.dvae_{name}"]


def test_only_combinations_of_options_are_composed_before_a_sweep(tmp_path, capsys):
    """With a composition for each of 3,000 runs, the sweep would be silent for minutes."""
    composed = []
    loader = SimpleNamespace(
        get_group_options=lambda group: ["zgr", "rloo"] if group == "estimator" else [],
        load_sweep_config=lambda master_config, sweep_overrides: composed.append(sweep_overrides),
    )
    grid = _plugin("grid.GridSweeper")(max_batch_size=None)
    grid.hydra_context = SimpleNamespace(config_loader=loader)
    grid.config = SimpleNamespace(hydra=SimpleNamespace(sweep=SimpleNamespace(dir=tmp_path)))
    record(tmp_path / "a", state="finished")
    record(tmp_path / "b", UserError("no"))
    jobs = [[f"estimator={e}", f"seed={s}"] for e in ("zgr", "rloo", "x") for s in range(1000)]
    grid.validate_batch_is_legal(jobs)
    assert sorted(job[0] for job in composed) == ["estimator=rloo", "estimator=x", "estimator=zgr"]
    assert capsys.readouterr().out == "3000 runs, 1 of which have ended\n"


class _Watch(Callback):
    """Adds the data of a run to a list, and fails in the third run."""

    def __init__(self, data):
        self.data = data

    def on_train_start(self, trainer, pl_module):
        self.data.append(weakref.ref(trainer.datamodule))
        if len(self.data) == 3:
            raise ZeroDivisionError


def test_runs_leave_neither_threads_nor_files_nor_data(make_config, tmp_path):
    """Runs in one process, as in a sequential sweep; the third of them fails."""
    small = ["debug=fast", "model.hidden=[4]", "model.num_latents=2", "data.eval_batch_size=20"]
    data, found = [], []
    gc.disable()
    try:
        for seed in range(4):
            pictures = "callbacks=none" if seed else "callbacks=default"
            config = make_config(*small, pictures, f"seed={seed}", output=tmp_path / str(seed))
            with suppress(ZeroDivisionError):
                run_in_folder(config, lambda config: train(config, [_Watch(data)]))
            files = {os.path.realpath(path) for path in Path("/proc/self/fd").iterdir()}
            found.append((threading.active_count(), [f for f in files if str(tmp_path) in f]))
        earlier = [reference() for reference in data[:3]]
    finally:
        gc.enable()
    assert json.loads((tmp_path / "2" / "status.json").read_text())["state"] == "failed"
    assert found == [(found[0][0], [])] * 4
    assert earlier == [None] * 3, "data of earlier runs"


def test_a_process_is_told_from_a_later_one_with_its_number():
    own = identity()
    assert is_alive(own)
    assert is_alive({"host": own["host"], "pid": own["pid"]}), "old runs have no start"
    assert is_alive({"host": "elsewhere", "pid": own["pid"], "started": 0})
    if own["started"] is not None:
        assert not is_alive(own | {"started": own["started"] - 1})


def test_a_process_that_nobody_waits_for_is_dead():
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    about = identity() | {"pid": process.pid}
    about.pop("started")
    try:
        assert is_alive(about)
        process.kill()
        end = time.monotonic() + 10
        while is_alive(about) and time.monotonic() < end:
            time.sleep(0.01)
        assert not is_alive(about), "a zombie is not alive"
    finally:
        process.communicate()
    assert not is_alive(about)
