"""Names of runs in a sweep: legal on every system, short enough, and different for each run."""

import re

import pytest

from dvae.commands.cli import ROOT
from dvae.runs.naming import run_name

ILLEGAL = re.compile(r'[<>:"/\\|?*\x00-\x1f]|[. ]$')


@pytest.mark.parametrize(
    "overrides",
    ["", "seed=0", "estimator=zgr,model.hidden=[256,512],seed=1", "a='b c',+b=é", "a=" + "x" * 253],
)
def test_short_names_stay_as_they_are(overrides):
    """Sweeps of earlier versions find their runs again."""
    assert run_name(overrides) == overrides


def test_characters_that_a_name_cannot_have_are_replaced():
    assert run_name("paths.data_dir=/a/b,seed=0") == "paths.data_dir=%2Fa%2Fb,seed=0"
    for character in '<>:"/\\|?*\n\0':
        assert not ILLEGAL.search(run_name(f"a={character},seed=0"))
    assert not ILLEGAL.search(run_name("temperature.steps=1."))


def test_different_runs_have_different_names():
    tails = ["", "x", "/", "%2F", ":", "\\", ".", "é"]
    runs = [
        f"{head}{tail}" for head in ("a=", "a=" + "x" * 254, "a=" + "é" * 300) for tail in tails
    ]
    assert len({run_name(run) for run in runs}) == len(runs)


@pytest.mark.parametrize("letter", ["x", "é", "字", "/", "\udce9"])
def test_long_names_are_shortened(letter):
    overrides = f"estimator=zgr,a={letter * 300},seed=0"
    name = run_name(overrides)
    assert name == run_name(overrides)
    assert name.startswith("estimator=zgr,a=")
    assert len(name.encode()) <= 255


def test_a_sweep_over_many_keys_and_paths_starts_its_runs(run_scripts, tmp_path):
    """Each value is refused, which takes less time than a run; its folder is made all the same."""
    keys = ["data.batch_size", "model.num_latents", "model.num_categories", "optimizer.lr"]
    keys += ["temperature.initial", "temperature.minimum", "optimizer.warmup", "trainer.max_epochs"]
    keys += ["objective.num_samples", "trainer.log_every", "trainer.validate_every", "seed"]
    swept = [f"{key}=choice(-123456)" for key in keys]
    swept += ["paths.data_dir=a/b,c/d", f"hydra.sweep.dir={tmp_path}"]
    [(code, _, error)] = run_scripts([["train.py", "-m", *swept]], tmp_path)
    assert code == 2, error
    assert "File name too long" not in error
    statuses = list(tmp_path.rglob("status.json"))
    assert len(statuses) == 2
    for status in statuses:
        # A value with a slash makes no folder of its own.
        assert status.parent.parent == tmp_path
        assert len(status.parent.name.encode()) <= 255


def test_no_two_files_have_the_same_name_without_case():
    """Windows and macOS take them for one; Windows also knows fewer characters."""
    files = [p for top in ("src", "configs", "scripts", "docs") for p in (ROOT / top).rglob("*")]
    names = [str(path.relative_to(ROOT)) for path in files if "__pycache__" not in path.parts]
    assert len({name.lower() for name in names}) == len(names)
    assert not [name for name in names if ILLEGAL.search(name.replace("/", ""))]
