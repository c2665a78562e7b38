"""Full disks and removed folders lose no files; long runs do not leak memory or open files."""

import os
import resource
import shutil
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from dvae.commands.train import train
from dvae.files import write_file
from tests.programs import Program

SMALL = [
    "model.hidden=[64]",
    "model.num_latents=2",
    "trainer.accelerator=cpu",
    "trainer.progress_bar=false",
    "trainer.limit_train_batches=2",
    "trainer.limit_eval_batches=1",
    "data.eval_batch_size=20",
    "test_samples=0",
]


def _start(folder, data_dir, *options, prepare=None):
    own = [f"paths.data_dir={data_dir}", f"hydra.run.dir={folder}", "callbacks=none"]
    return Program("train.py", *SMALL, *own, *options, prepare=prepare).finish()


def _limit_file_size():
    """Limits files to 100 kB, so that writing a checkpoint fails as on a full disk."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))


def _contents(folder):
    names = ("*.ckpt", "metrics.json", "*.png", "config.yaml")
    return {path: path.read_bytes() for name in names for path in folder.rglob(name)}


def test_a_full_disk_loses_nothing(tmp_path, data_dir):
    assert _start(tmp_path, data_dir, "trainer.max_epochs=1")[0] == 0
    before = _contents(tmp_path)
    assert {"last.ckpt", "best.ckpt", "metrics.json"} < {path.name for path in before}
    more = ["trainer.max_epochs=2", "resume=last"]
    code, _, errors = _start(tmp_path, data_dir, *more, prepare=_limit_file_size)
    lines = errors.strip().splitlines()
    assert code == 2, errors
    assert len(lines) == 1, errors
    assert lines[0].startswith(f"error: {tmp_path}/checkpoints/")
    assert "File too large" in lines[0]
    after = _contents(tmp_path)
    checkpoints = {path for path in before if path.suffix == ".ckpt"}
    assert after.keys() == before.keys()
    assert all(after[path] == before[path] for path in checkpoints | {tmp_path / "metrics.json"})
    assert not list(tmp_path.rglob("*.part"))
    # Once there is room again, the run resumes.
    assert _start(tmp_path, data_dir, *more)[0] == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="needs the right to mount")
def test_a_full_file_system_loses_nothing(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", disk]).returncode:
        pytest.skip("cannot mount here")
    try:
        path = disk / "file"
        path.write_bytes(b"x" * 40_000)
        with pytest.raises(OSError, match="No space left on device"), write_file(path, "wb") as f:
            f.write(b"y" * 40_000)
        assert path.read_bytes() == b"x" * 40_000
        assert [entry.name for entry in disk.iterdir()] == ["file"]
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_removed_folder_is_named_in_the_error(make_config, tmp_path):
    from pytorch_lightning.callbacks import Callback

    class Vanish(Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 1:
                shutil.rmtree(tmp_path / "run")
                (tmp_path / "run").write_text("a file where the folder was")

    with pytest.raises(OSError, match=str(tmp_path / "run")):
        train(make_config(*SMALL, "trainer.max_epochs=2", "callbacks=none"), [Vanish()])


def test_long_runs_leak_neither_memory_nor_open_files(make_config):
    """Compares memory and open files at epochs 30 and 119; the epochs are very short."""
    from pytorch_lightning.callbacks import Callback

    measured = {}

    class Measure(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            if trainer.current_epoch in (30, 119):
                process = psutil.Process()
                files = len(list(Path("/proc/self/fd").iterdir()))
                measured[trainer.current_epoch] = process.memory_info().rss, files

    train(make_config(*SMALL, "trainer.max_epochs=120", "callbacks=none"), [Measure()])
    (rss, files), (rss_later, files_later) = measured[30], measured[119]
    assert rss_later < 1.02 * rss
    # Files that earlier tests left open may be closed in between.
    assert files_later <= files
