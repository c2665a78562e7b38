"""File systems that lack operations, are read-only or full: work goes on, nothing is lost."""

import errno
import json
import logging
import os
import subprocess

import pytest

from dvae import files
from dvae.commands.checking import check
from dvae.commands.cli import compose
from dvae.commands.evaluate import evaluate
from dvae.commands.schedule import show
from dvae.commands.train import train
from dvae.errors import BusyError
from dvae.files import check_writable, lock_folder, write_file
from dvae.runs.folder import run_in_folder
from dvae.tasks.options import EvaluateConfig

SMALL = ["debug=fast", "model.hidden=[8]", "model.num_latents=2", "data.eval_batch_size=50"]
LACKING = [errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP]


@pytest.fixture(autouse=True)
def _not_yet_warned(monkeypatch):
    monkeypatch.setattr(files, "_warned", set())


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, data_dir):
    """The best checkpoint of a small run."""
    folder = tmp_path_factory.mktemp("run")
    own = [f"paths.data_dir={data_dir}", f"paths.output_dir={folder}", "trainer.accelerator=cpu"]
    from dvae.training.config import RunConfig

    train(check(RunConfig, compose("train", [*SMALL, *own, "trainer.progress_bar=false"])))
    return folder / "checkpoints" / "best.ckpt"


@pytest.fixture(scope="module")
def read_only(checkpoint, tmp_path_factory):
    """A read-only file system with the checkpoint's run and a folder for data."""
    disk = tmp_path_factory.mktemp("disk")
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "none", disk]).returncode:
        pytest.skip("cannot mount here")
    try:
        subprocess.run(["cp", "-r", checkpoint.parent.parent, disk / "run"], check=True)
        (disk / "run" / "status.json").write_text('{"state": "finished", "seconds": 1}')
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        yield disk
    finally:
        subprocess.run(["umount", disk], check=True)


def _fail_with(number, *, on_folders=None):
    """A function that fails with an error, on folders or on files only if asked for."""

    def fail(handle, *rest):
        handle = handle if isinstance(handle, int) else handle.fileno()
        if on_folders in (None, os.path.isdir(f"/proc/self/fd/{handle}")):
            raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("number", LACKING)
@pytest.mark.parametrize("where", ["flock", "fsync of folders", "fsync of files"])
def test_missing_operations_are_said_once(tmp_path, monkeypatch, caplog, where, number):
    if where == "flock":
        monkeypatch.setattr("fcntl.flock", _fail_with(number))
    else:
        monkeypatch.setattr(os, "fsync", _fail_with(number, on_folders=where.endswith("folders")))
    for content in ("one", "two"):
        with lock_folder(tmp_path), write_file(tmp_path / "file") as file:
            file.write(content)
        assert (tmp_path / "file").read_text() == content
    [line] = [record.getMessage() for record in caplog.records]
    assert line.startswith(f"{tmp_path}")
    assert os.strerror(number) in line


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.ESTALE])
def test_other_errors_name_the_path(tmp_path, monkeypatch, number):
    monkeypatch.setattr("fcntl.flock", _fail_with(number))
    with pytest.raises(OSError, match=str(tmp_path)), lock_folder(tmp_path):
        pass
    monkeypatch.setattr(os, "fsync", _fail_with(number))
    (tmp_path / "file").write_text("old")
    with (
        pytest.raises(OSError, match=str(tmp_path / "file")),
        write_file(tmp_path / "file") as file,
    ):
        file.write("new")
    assert (tmp_path / "file").read_text() == "old"
    assert not list(tmp_path.rglob("*.part"))


def test_folders_that_cannot_be_read_can_be_written(tmp_path, monkeypatch):
    """Windows opens no folder at all."""
    plain = os.open

    def open_file(path, *rest, **options):
        if os.path.isdir(path):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return plain(path, *rest, **options)

    monkeypatch.setattr(os, "open", open_file)
    with write_file(tmp_path / "file") as file:
        file.write("content")
    assert (tmp_path / "file").read_text() == "content"


def test_locks_work_where_there_are_some(tmp_path):
    with lock_folder(tmp_path), pytest.raises(BusyError), lock_folder(tmp_path):
        pass


def test_a_file_with_the_longest_name_can_be_written(tmp_path):
    with write_file(tmp_path / ("x" * 255)) as file:
        file.write("content")
    assert [path.name for path in tmp_path.iterdir()] == ["x" * 255]


def test_a_run_trains_without_locks_and_flushing(make_config, monkeypatch, caplog):
    monkeypatch.setattr("fcntl.flock", _fail_with(errno.ENOSYS))
    monkeypatch.setattr(os, "fsync", _fail_with(errno.EINVAL))
    with caplog.at_level(logging.WARNING, "dvae.files"):
        assert run_in_folder(make_config(*SMALL, "callbacks=none"), train) < 0
    lines = [record.getMessage() for record in caplog.records if record.name == "dvae.files"]
    assert len(lines) == 3
    assert all("this file system has no" in line for line in lines)


def _config(checkpoint, data_dir, *overrides):
    own = [f"checkpoint={checkpoint}", f"data_dir={data_dir}", "device=cpu", "num_samples=0"]
    return check(EvaluateConfig, compose("evaluate", [*own, "progress_bar=false", *overrides]))


def test_a_read_only_file_is_named(read_only):
    """Not the temporary file beside it."""
    path = read_only / "file"
    with pytest.raises(OSError, match=f"Read-only file system: '{path}'"), write_file(path):
        pass
    with pytest.raises(OSError, match=f"Read-only file system: '{path}'"):
        check_writable(path)


@pytest.mark.parametrize("output", ["a folder", "below a file"])
def test_evaluation_checks_its_output_first(checkpoint, data_dir, tmp_path, monkeypatch, output):
    (tmp_path / "file").touch()
    path = tmp_path if output == "a folder" else tmp_path / "file" / "out.json"
    monkeypatch.setattr("pytorch_lightning.Trainer.test", lambda *_, **__: pytest.fail("computed"))
    with pytest.raises(OSError, match=str(path)):
        evaluate(_config(checkpoint, data_dir, f"output='{path}'"))


def test_evaluation_makes_the_folder_of_its_output(checkpoint, data_dir, tmp_path):
    path = tmp_path / "new" / "folder" / "out.json"
    metrics = evaluate(_config(checkpoint, data_dir, f"output='{path}'"))
    assert json.loads(path.read_text())["metrics"] == metrics


def _full(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device", "file")


def test_results_are_printed_before_a_full_disk_ends_the_program(
    checkpoint, data_dir, make_config, monkeypatch, capsys
):
    # The disk is full as soon as something is computed.
    monkeypatch.setattr("dvae.commands.evaluate.write_json", _full)
    with pytest.raises(OSError, match="No space"):
        evaluate(_config(checkpoint, data_dir))
    assert "test/elbo" in capsys.readouterr().out
    monkeypatch.setattr("dvae.commands.train.write_json", _full)
    monkeypatch.setattr("dvae.commands.train._Provenance.on_train_start", lambda *_: None)
    with pytest.raises(OSError, match="No space"):
        train(make_config(*SMALL, "callbacks=none"))
    assert "test/elbo" in capsys.readouterr().out
    monkeypatch.setattr("dvae.commands.schedule.write_file", _full)
    with pytest.raises(OSError, match="No space"):
        show(make_config())
    assert "learning rate" in capsys.readouterr().out


def test_read_only_places_are_answered_at_once_with_the_keys_to_set(
    read_only, checkpoint, data_dir, run_scripts, tmp_path
):
    stored = f"checkpoint={read_only / 'run' / 'checkpoints' / 'best.ckpt'}"
    data, run = [f"data_dir={data_dir}", "device=cpu"], f"hydra.run.dir={tmp_path}"
    # If it were drawn, it would take hours.
    long = ["num_samples=1000000000", "progress_bar=false"]
    training = [f"paths.data_dir={data_dir}", *SMALL]
    cases = [
        (["train.py", f"hydra.run.dir={read_only / 'a'}", *training], "hydra.run.dir=…"),
        (["train.py", "-m", f"hydra.sweep.dir={read_only / 'a'}", *training], "hydra.sweep.dir=…"),
        (["train.py", run, f"paths.data_dir={read_only / 'd'}", *SMALL], "paths.data_dir"),
        (["evaluate.py", stored, *data, *long], "output=…"),
        (["evaluate.py", stored, f"data_dir={read_only / 'd'}", "output=o", *long], " data_dir"),
        (["sample.py", stored, *data, "num_images=1000000000"], "output_dir=…"),
        (["gradients.py", run, f"paths.output_dir={read_only / 'a'}"], "hydra.run.dir=…"),
        (["benchmark.py", run, f"paths.output_dir={read_only / 'a'}"], "hydra.run.dir=…"),
    ]
    answers = run_scripts([command for command, _ in cases], tmp_path)
    for (command, key), (code, output, error) in zip(cases, answers, strict=True):
        assert code == 2, (command, error)
        assert error.startswith(("error: ", "error: paths.data_dir")), error
        assert len(error.splitlines()) == 1, error
        assert str(read_only) in error
        assert "Read-only file system" in error
        assert key in error
        assert not output.strip().removeprefix("sweep in").count("\n") > 1


def test_a_read_only_sweep_is_summarized_on_the_screen(read_only, run_scripts, tmp_path):
    [(code, output, error)] = run_scripts([["summarize.py", str(read_only)]], tmp_path)
    assert code == 2
    assert "Settings, ranked by val/elbo" in output
    assert error == (
        f"error: {read_only / 'sweep.csv'}: expected to write it, found: Read-only file system\n"
    )
