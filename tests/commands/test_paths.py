"""Folders with any name, and commands that are refused, as a user meets them."""

from types import SimpleNamespace

import pytest

NAME = "a#b é $HOME,=(x) [/y] 'z'"
SMALL = ["debug=fast", "model.hidden=[8]", "model.num_latents=2", "trainer.progress_bar=false"]


def _files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def answers(run_scripts, tmp_path_factory, data_dir):
    """A run in a folder with an odd name, evaluations of it, and commands that are refused."""
    folder = tmp_path_factory.mktemp("odd")
    (folder / "data; é").symlink_to(data_dir, target_is_directory=True)
    run, data = folder / NAME, f"{folder}/data; é"
    best, last = (run / "checkpoints" / f"{name}.ckpt" for name in ("best", "last"))
    train = ["train.py", *SMALL, "trainer.accelerator=cpu", f"paths.data_dir={data}"]
    evaluate = ["evaluate.py", f"data_dir={data}", "split=val", "data.validation=50", "device=cpu"]
    evaluate += ["num_samples=2", "progress_bar=false", f"hydra.sweep.dir={folder / 'evaluations'}"]
    done = [
        [*train, "data.eval_batch_size=50", f"hydra.run.dir={run}"],
        # The flag may stand between settings.
        [*evaluate, "-m", f"checkpoint={best},{last}"],
    ]
    refused = [
        [*train, f"hydra.run.dir={run}", "optimizer.lr=-1"],
        [*train, f"hydra.run.dir={run}", "optimizer.lr=0.5"],
        [*train, f"hydra.run.dir={folder / 'new' / 'run'}", "optimizer.lr=-1"],
        # Refused once the images are known.
        [*train, f"hydra.run.dir={folder / 'new' / 'run'}", "data.validation=60000"],
        [*train, f"hydra.run.dir={folder / 'empty'}", "data.validation=60000"],
        ["gradients.py", f"hydra.run.dir={folder / 'new' / 'run'}", "num_draws=1"],
        [*train, f"hydra.sweep.dir={folder / 'new' / 'sweep'}", "-m", "estimator=zgr,none"],
        [*evaluate, "-m", "checkpoint=none,nothing", f"hydra.sweep.dir={folder / 'failed'}"],
    ]
    (folder / "empty").mkdir()
    first = run_scripts(done, folder)
    before = _files(folder)
    second = run_scripts(refused, folder)
    return SimpleNamespace(folder=folder, run=run, done=first, refused=second, before=before)


def test_a_run_in_a_folder_with_an_odd_name(answers):
    code, output, _ = answers.done[0]
    assert code == 0
    assert f"run  {answers.run}\n" in output
    for name in ("metrics.json", "config.yaml", "checkpoints/best.ckpt", "reconstructions.png"):
        assert (answers.run / name).is_file()
    assert list(answers.run.glob("events.out.tfevents.*")), "TensorBoard's files"


def test_a_sweep_evaluates_checkpoints_in_folders_with_odd_names(answers):
    code, output, errors = answers.done[1]
    assert code == 0, errors
    for name in ("best", "last"):
        assert f"written to {answers.run}/checkpoints/{name}.val.json" in output


def test_refused_commands_leave_nothing_behind(answers):
    assert [code for code, _, _ in answers.refused] == [2] * 8, answers.refused
    for _, _, line in answers.refused[:-1]:
        assert line.startswith("error: ")
        assert len(line.splitlines()) == 1
    for path in answers.before:
        assert path.read_bytes() == answers.before[path], path
    assert not (answers.folder / "new").exists()
    assert not list((answers.folder / "empty").iterdir())
