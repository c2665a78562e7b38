"""An interrupted run resumes and ends with the same numbers as an undisturbed one."""

import json
import math
import os
import random
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from pytorch_lightning.callbacks import Callback, EarlyStopping
from torch.utils._pytree import tree_flatten_with_path

from dvae.commands.checking import check
from dvae.commands.cli import CONFIGS, _record_failure, compose
from dvae.commands.train import train
from dvae.errors import BusyError, UserError
from dvae.files import lock_folder
from dvae.runs.arguments import quote_paths, quoted, text_of
from dvae.runs.folder import record, run_in_folder
from dvae.runs.resume import resumed
from dvae.training.config import RunConfig
from dvae.training.resilience import BestCheckpoint, Patience
from tests.programs import processes

KILLS = 12
SMALL = [
    "trainer.progress_bar=false",
    "trainer.accelerator=cpu",
    "trainer.limit_train_batches=13",
    "trainer.limit_eval_batches=1",
    "trainer.max_epochs=4",
    "trainer.steps_per_call=3",
    "trainer.log_every=5",
    "data.validation=100",
    "data.batch_size=20",
    "data.eval_batch_size=100",
    "model.num_latents=3",
    "model.hidden=[16]",
    "callbacks=none",
    "test_samples=2",
]
KINDS = {
    "default": ["model.normalization=batch"],
    "reinforce": ["estimator=reinforce", "temperature=none"],
    "momentum": ["optimizer=sgd", "objective=vimco", "data.binarization=fixed", "prior=learned"],
    "sparse": ["trainer.validate_every=3", "precision=bf16"],
    "averaged": ["trainer.average=0.9"],
    "early": ["callbacks.early_stopping=1", "optimizer.lr=0.3"],
}


def _config(folder, data_dir, *overrides):
    own = [f"paths.data_dir={data_dir}", f"paths.output_dir={folder}"]
    return check(RunConfig, compose("train", [*SMALL, *own, *overrides]))


def _run(config):
    torch.set_num_threads(1)
    run_in_folder(config, train)


def _start(config):
    process = processes.Process(target=_run, args=(config,))
    process.start()
    return process


def _training_starts(folder, process):
    """Waits for the file that is written first in training, and returns the time."""
    while not (folder / "config.yaml").exists():
        assert process.is_alive()
        time.sleep(0.002)
    return time.monotonic()


def _final_state(folder):
    """The weights, optimizer and callback states, metrics and step count of a finished run."""
    last, best = (
        torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)
        for name in ("last", "best")
    )
    keys = ("state_dict", "trained_weights", "optimizer_states", "callbacks")
    states = [{key: c[key] for key in keys if key in c} for c in (last, best)]
    metrics = json.loads((folder / "metrics.json").read_text())
    return {**dict(tree_flatten_with_path(states)[0]), **metrics, "steps": last["global_step"]}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, data_dir):
    """The final state of an undisturbed run of each kind, and its seconds of training and test."""
    ends = {}
    for kind, overrides in KINDS.items():
        folder = tmp_path_factory.mktemp(kind)
        process = _start(_config(folder, data_dir, *overrides))
        start = _training_starts(folder, process)
        process.join(300)
        assert process.exitcode == 0
        ends[kind] = _final_state(folder), time.monotonic() - start
    return ends


def test_the_last_checkpoint_stores_the_best_score(undisturbed):
    """A run that is killed right after the save needs the best score so far."""
    for kind, (end, _) in undisturbed.items():
        scores = [value for key, value in end.items() if str(key).endswith("key='score'))")]
        assert scores == [end["val/elbo"]] * 2, kind


@pytest.mark.parametrize("number", range(KILLS))
def test_a_killed_run_ends_as_if_undisturbed(undisturbed, tmp_path, data_dir, number):
    kind = list(KINDS)[number % len(KINDS)]
    expected, seconds = undisturbed[kind]
    # Uniform over the training and the final test, where there is something to lose.
    moment = random.Random(number).uniform(0, seconds)
    config = _config(tmp_path, data_dir, *KINDS[kind], "trainer.save_every=0.01")
    process = _start(config)
    _training_starts(tmp_path, process)
    process.join(moment)
    process.kill()
    process.join(300)
    process = _start(config)
    process.join(300)
    assert process.exitcode == 0
    found = _final_state(tmp_path)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        same = torch.equal if isinstance(value, torch.Tensor) else lambda one, other: one == other
        assert same(value, found[name]), name
    assert not list(tmp_path.rglob(".*.part"))


def test_overrides_of_a_refused_command_are_not_resumed(tmp_path):
    """Hydra writes the overrides of every command, also of a refused one."""
    (tmp_path / ".hydra").mkdir()
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    (tmp_path / "status.json").write_text('{"state": "interrupted"}')
    (tmp_path / "environment.json").write_text('{"overrides": []}')
    (tmp_path / ".hydra" / "overrides.yaml").write_text("- optimizer.lr=0.1\n")
    arguments = resumed([f"resume={tmp_path}"], tmp_path)
    assert [item.partition("=")[0] for item in arguments] == ["hydra.run.dir", "resume"]


def test_a_checkpoint_outside_a_run_is_resumed_in_a_new_folder(tmp_path):
    (tmp_path / "a.ckpt").touch()
    arguments = resumed(["seed=1", f"resume={tmp_path / 'a.ckpt'}"], tmp_path)
    assert arguments == ["seed=1", f"resume='{tmp_path / 'a.ckpt'}'"]


@pytest.mark.parametrize("target", ["typo", "."])
def test_a_path_that_is_not_a_run_is_refused(tmp_path, target):
    with pytest.raises(UserError, match="resume: expected a run's folder or a checkpoint"):
        resumed([f"resume={tmp_path / target}"], tmp_path)
    assert not list(tmp_path.iterdir())


def _run_folder(folder, overrides, state="interrupted"):
    """Writes the files of a run that has saved a checkpoint."""
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "last.ckpt").touch()
    (folder / "status.json").write_text(json.dumps({"state": state}))
    (folder / "environment.json").write_text(json.dumps({"overrides": overrides}))
    return folder


@pytest.mark.parametrize(
    ("stored", "given", "kept"),
    [
        ("trainer.accelerator=gpu", "trainer=cpu", False),
        ("trainer.accelerator=gpu", "trainer=auto", False),
        ("trainer.devices=4", "trainer=cpu", False),
        ("trainer=gpu", "trainer=cpu", False),
        ("trainer.max_epochs=40", "trainer=cpu", True),
        ("trainer.max_epochs=40", "debug=fast", False),
        ("trainer.accelerator=gpu", "debug=fast", True),
        ("trainer.accelerator=gpu", "trainer.accelerator=cpu", False),
        ("estimator.num_samples=4", "estimator=reinforce", False),
        ("estimator.num_relaxations=5", "estimator=reinmax_rao", False),
        ("objective.num_samples=3", "objective=vimco", False),
        ("temperature.minimum=0.3", "temperature=constant", False),
        ("model.hidden=[8]", "trainer=cpu", True),
    ],
)
def test_an_option_given_now_overrides_the_settings_that_it_decides(tmp_path, stored, given, kept):
    _run_folder(tmp_path, [stored])
    arguments = resumed([f"resume={tmp_path}", given], tmp_path, [CONFIGS])
    assert (stored in arguments) == kept
    assert given in arguments


def test_the_last_run_is_one_of_this_user(tmp_path, monkeypatch, capsys):
    """The file of the newer run belongs to another user."""
    mine, other = (_run_folder(tmp_path / name, []) for name in ("mine", "other"))
    file = other / "checkpoints" / "last.ckpt"
    os.utime(file, (2e9, 2e9))
    stat = Path.stat

    def owned(path, **options):
        about = stat(path, **options)
        values = {name: getattr(about, name) for name in ("st_mode", "st_mtime")}
        return SimpleNamespace(**values, st_uid=os.getuid() + (path == file))

    monkeypatch.setattr(Path, "stat", owned)
    assert any(str(mine) in item for item in resumed(["resume=last"], tmp_path))
    assert capsys.readouterr().out == f"resuming {mine}\n"
    shutil.rmtree(mine)
    with pytest.raises(UserError, match="a run of yours with a checkpoint in .* found 1 of other"):
        resumed(["resume=last"], tmp_path)


def test_a_folder_with_any_name_is_resumed(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    name = "a=1,b=é #'\\ $HOME"
    folder = _run_folder(tmp_path / name, [])
    expected = [f"hydra.run.dir={quoted(folder)}", f"resume={quoted(folder)}"]
    for given in (f"resume={folder}", f"resume={quoted(folder)}", f"resume=~/{name}"):
        [run, checkpoint] = resumed(quote_paths([given]), tmp_path)
        assert run == expected[0]
        assert text_of(checkpoint.removeprefix("resume=")) == f"{folder}/checkpoints/last.ckpt"


@pytest.fixture(scope="module")
def finished(tmp_path_factory, data_dir):
    """The folder of a finished run of 2 epochs of 5 steps."""
    folder = tmp_path_factory.mktemp("finished")
    run_in_folder(_config(folder, data_dir, *SHORT), train)
    return folder


SHORT = ["model.hidden=[8]", "trainer.limit_train_batches=5", "trainer.max_epochs=2"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            "trainer.max_epochs=1",
            "trainer.max_epochs: expected at least 2, the epochs in ",
        ),
        (
            "trainer.limit_train_batches=1 trainer.max_epochs=4",
            "more than 10 steps, .* 4 in",
        ),
        ("model.hidden=[9]", "resume: expected vae.encoder"),
        ("optimizer=sgd", "optimizer: expected adamw"),
        ("logits=softmax", "logits: expected catnat, as in the checkpoint .*, found softmax"),
        ("prior=learned", "prior: expected uniform"),
        ("model=conv model.hidden=8", "model: expected mlp"),
    ],
)
def test_a_finished_run_stays_finished_if_it_cannot_go_on(finished, data_dir, changed, message):
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    last = f"resume={finished / 'checkpoints' / 'last.ckpt'}"
    with pytest.raises(UserError, match=message):
        run_in_folder(_config(finished, data_dir, *SHORT, last, *changed.split()), train)
    after = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    assert after == before


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, OSError])
def test_a_finished_run_stays_finished_if_training_does_not_start(finished, data_dir, error):
    def never(config):
        raise error

    before = (finished / "status.json").read_bytes()
    last = f"resume={finished / 'checkpoints' / 'last.ckpt'}"
    config = _config(finished, data_dir, *SHORT, "trainer.max_epochs=3", last)
    with pytest.raises(error):
        run_in_folder(config, never)
    assert (finished / "status.json").read_bytes() == before


def test_a_finished_run_is_tested_anew_with_other_settings(finished, data_dir, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    last = f"resume={tmp_path / 'run' / 'checkpoints' / 'last.ckpt'}"
    config = _config(tmp_path / "run", data_dir, *SHORT, last, "test_samples=3")
    run_in_folder(config, train)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert "test/nll_iw3" in metrics


def test_a_refused_resume_leaves_the_run_unchanged(tmp_path, data_dir):
    class Stop(Callback):
        def on_train_batch_end(self, trainer, *args):
            if trainer.global_step == 6:
                trainer.save_checkpoint(tmp_path / "checkpoints" / "last.ckpt")
                raise KeyboardInterrupt

    options = ["model.hidden=[8]"]
    with pytest.raises(SystemExit):
        train(_config(tmp_path, data_dir, *options), [Stop()])
    before = {name: (tmp_path / name).read_bytes() for name in ("config.yaml", "environment.json")}
    last = f"resume={tmp_path / 'checkpoints' / 'last.ckpt'}"
    with pytest.raises(UserError, match="in the middle of an epoch"):
        train(_config(tmp_path, data_dir, *options, last, "trainer.limit_train_batches=20"))
    assert all((tmp_path / name).read_bytes() == content for name, content in before.items())


def test_a_resumed_run_can_have_another_patience():
    longer = Patience("val/elbo", mode="max", patience=10)
    ended = EarlyStopping("val/elbo", mode="max", patience=3)
    ended.wait_count, ended.stopped_epoch = 3, 7
    longer.load_state_dict(ended.state_dict())
    assert (longer.patience, longer.wait_count, longer.stopped_epoch) == (10, 3, 0)


def test_early_stopping_ends_a_run(tmp_path, data_dir):
    train(_config(tmp_path, data_dir, *KINDS["early"], "optimizer.lr=1e-9", "trainer.max_epochs=9"))
    last = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] < 9 * 13


def test_the_best_checkpoint_in_a_relative_folder_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = Path("run/checkpoints/best.ckpt")
    path.parent.mkdir(parents=True)
    path.touch()
    best = BestCheckpoint(path, "val/elbo")
    best.load_state_dict({"score": -1.0})
    # Lightning writes the next best checkpoint to the same path.
    assert best.best_model_path == best.format_checkpoint_name({}) == str(path.resolve())


def test_only_one_run_can_lock_a_folder(tmp_path):
    with (
        lock_folder(tmp_path),
        pytest.raises(BusyError, match="no other run writes to"),
        lock_folder(tmp_path),
    ):
        pass
    with lock_folder(tmp_path):
        pass


def test_a_second_start_of_a_sweep_leaves_running_runs_alone(tmp_path, monkeypatch):
    hydra = SimpleNamespace(runtime=SimpleNamespace(output_dir=tmp_path))
    monkeypatch.setattr("dvae.commands.cli.HydraConfig", SimpleNamespace(get=lambda: hydra))
    record(tmp_path)
    before = (tmp_path / "status.json").read_text()
    assert math.isnan(_record_failure(BusyError("another run writes to it")))
    assert (tmp_path / "status.json").read_text() == before
    assert math.isnan(_record_failure(UserError("it cannot be")))
    assert json.loads((tmp_path / "status.json").read_text())["state"] == "failed"
