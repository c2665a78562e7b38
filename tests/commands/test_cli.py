"""Runs the scripts as a user does."""

import json
import subprocess
import sys

import pytest
from omegaconf import OmegaConf

from dvae.commands.cli import CONFIGS, ROOT, compose
from dvae.estimators import ESTIMATORS

SMALL = ["debug=fast", "model.hidden=[8]", "model.num_latents=2", "trainer.progress_bar=false"]


def _run(script, *arguments, **options):
    command = [sys.executable, str(ROOT / "scripts" / f"{script}.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, **options)


MISTAKES = [
    ("train", ["optimizer.lrr=1"], "optimizer.lrr: no such key; did you mean optimizer.lr?"),
    ("train", ["train.lrr=1"], "train.lrr: no such key; did you mean optimizer.lr?"),
    ("train", ["lr=1e-3"], "lr: no such key; did you mean optimizer.lr?"),
    ("train", ["epochs=5"], "epochs: no such key; did you mean trainer.max_epochs?"),
    ("train", ["sweep=temperature"], "sweep: no such key; add a preset with +sweep=…"),
    ("train", ["-m", "task=vae,policy", "lrr=1"], "lrr: no such key; did you mean"),
    ("train", ["paths.output_dir="], "output_dir: expected at least 1 character, found ''"),
    (
        "train",
        ["experiment=grey", "estimator=zgr"],
        "error: experiment: expected an estimator with",
    ),
    (
        "train",
        ["experiment=grey", "model.num_latents=3"],
        "4x24, 8x16, 16x12, 64x8, 10x30, found 8x3",
    ),
    (
        "train",
        ["experiment=choosing", "_epochs=0"],
        "_epochs: expected a finite number > 0, found 0",
    ),
    (
        "train",
        ["experiment=choosing", "_times.gumbel_softmax=x"],
        "_softmax: expected a finite numb",
    ),
    ("train", ["resume=none"], "resume: expected a run's folder or a checkpoint, found noth"),
    ("evaluate", ["task=vae"], "task: no such key"),
    ("evaluate", ["checkpoint=a=1,b=[2]/x"], "expected a file, found nothing at a=1,b=[2]/x"),
    ("train", ["estimater=x"], "estimater: no such key; did you mean estimator?"),
    (
        "train",
        ["estimator=gumbel_sotfmax"],
        "found 'gumbel_sotfmax'; did you mean gumbel_softm",
    ),
    ("train", ["temperature=0.5"], "temperature: expected one of constant, cosine, expon"),
    (
        "train",
        ["temperature.minimum=0"],
        "temperature.minimum: expected greater than 0, found 0",
    ),
    ("train", ["model.hidden=[512"], "no viable alternative at input '[512'"),
    ("train", ["seed"], "missing EQUAL"),
    ("train", ["hydra.run.dir=/proc/none/run"], "/proc/none"),
    ("evaluate", [], "checkpoint: expected a value, found none; give checkpoint=…"),
    (
        "evaluate",
        ["checkpoint=none.ckpt"],
        "checkpoint: expected a file, found nothing at none",
    ),
    ("evaluate", ["splti=val"], "splti: no such key; did you mean split?"),
    ("encode", [], "checkpoint: expected a value, found none; give checkpoint=…"),
    ("encode", ["checkpoint=x", "codes=arg"], "codes: expected one of 'argmax' or 'sample', found"),
    ("sample", ["checkpoint=none.ckpt"], "checkpoint: expected a file, found nothing at none"),
    ("sample", ["what=digits"], "checkpoint: expected a value, found none"),
    ("schedule", ["temperature=cosin"], "found 'cosin'; did you mean cosine?"),
]


@pytest.fixture(scope="module")
def answers(run_scripts, tmp_path_factory):
    """What the scripts answer to all mistakes."""
    commands = [[f"{script}.py", *arguments] for script, arguments, _ in MISTAKES]
    return run_scripts(commands, tmp_path_factory.mktemp("mistakes"))


@pytest.mark.parametrize(
    "number", range(len(MISTAKES)), ids=[" ".join([script, *a]) for script, a, _ in MISTAKES]
)
def test_mistakes_end_in_one_line_and_exit_code_2(answers, number):
    code, output, line = answers[number]
    assert code == 2
    assert MISTAKES[number][2] in line
    assert line.startswith("error: ")
    assert len(line.splitlines()) == 1
    assert not output


def test_a_separate_process_answers_alike(answers):
    script, arguments, _ = MISTAKES[0]
    result = _run(script, *arguments)
    assert (result.returncode, result.stdout, result.stderr) == answers[0]


def _imported(*command):
    """The packages that a command imports."""
    flags = [sys.executable, "-X", "importtime", *command]
    lines = subprocess.run(flags, capture_output=True, text=True, check=True).stderr.splitlines()
    return {line.rpartition("|")[2].strip().split(".")[0] for line in lines}


@pytest.mark.parametrize("arguments", [["--help"], ["--cfg", "job"]], ids=" ".join)
def test_answers_do_not_wait_for_torch(arguments):
    packages = _imported(str(ROOT / "scripts" / "train.py"), *arguments)
    assert "hydra" in packages
    assert not packages & {"torch", "torchvision", "pytorch_lightning", "matplotlib"}


def test_help_lists_the_groups():
    text = _run("train", "--help").stdout
    for line in (
        "estimator: carms, exact, gapped_st, gumbel_rao",
        "model: actor_critic, class_style, conv, mlp, resnet, stochastic",
        "seed: 0",
    ):
        assert line in text


@pytest.fixture(scope="module")
def works(run_scripts, tmp_path_factory, data_dir):
    """A folder, and what scripts that import torch answer: name → exit code, stdout, stderr."""
    folder = tmp_path_factory.mktemp("works")
    data, linear = f"paths.data_dir={data_dir}", folder / "linear"
    commands = {
        "multirun": [
            *("train.py", "-m", *SMALL, data, f"hydra.sweep.dir={folder / 'multirun'}"),
            *("temperature.minimum=0.3,0.5", "seed=0,1"),
        ],
        "none": [
            *("schedule.py", "task=policy", "estimator=zgr", "temperature=none"),
            f"hydra.run.dir={folder / 'none'}",
        ],
        "linear": [
            *("schedule.py", "temperature=linear", "temperature.minimum=0.5", data),
            *(f"paths.output_dir={linear}", f"hydra.run.dir={linear}"),
        ],
        "no checkpoint": ["evaluate.py", f"checkpoint={ROOT / 'pyproject.toml'}"],
    }
    answers = run_scripts(list(commands.values()), folder)
    return folder, dict(zip(commands, answers, strict=True))


def test_a_file_that_is_no_checkpoint_is_refused(works):
    code, _, line = works[1]["no checkpoint"]
    assert code == 2
    assert line.startswith("error: checkpoint: expected a checkpoint of tensors and plain")
    assert len(line.splitlines()) == 1


def test_multirun_writes_a_folder_for_each_run(works):
    code, _, errors = works[1]["multirun"]
    assert code == 0, errors
    folders = {path.parent for path in (works[0] / "multirun").rglob("metrics.json")}
    assert len(folders) == 4
    for minimum in ("0.3", "0.5"):
        for seed in ("0", "1"):
            assert (
                sum(
                    f"temperature.minimum={minimum}" in f.name and f"seed={seed}" in f.name
                    for f in folders
                )
                == 1
            )
    values = {json.loads((folder / "metrics.json").read_text())["val/elbo"] for folder in folders}
    assert len(values) == 4


def test_schedule_works_without_a_temperature(works):
    code, _, errors = works[1]["none"]
    assert code == 0, errors
    assert (works[0] / "none" / "schedule.png").stat().st_size > 0


def test_schedule_prints_a_table_and_a_plot(works):
    code, output, errors = works[1]["linear"]
    assert code == 0, errors
    assert "5,460 steps" in output
    assert "0.75" in output
    assert (works[0] / "linear" / "schedule.png").stat().st_size > 0


@pytest.mark.parametrize(
    ("overrides", "temperature"),
    [
        (["estimator=reinmax"], {"name": "constant", "initial": 1.4}),
        (["estimator=reinmax_cv"], {"name": "constant", "initial": 1.4}),
        (["estimator=reinmax_rao"], {"name": "constant", "initial": 1.0}),
        (["estimator=zgr"], {"name": "none"}),
        (["estimator=reinmax", "temperature.initial=1.2"], {"name": "constant", "initial": 1.2}),
        (["estimator=reinmax", "temperature=cosine"], {"name": "cosine", "initial": 1.0}),
        (["estimator=reinmax", "experiment=jang2017"], {"name": "exponential", "initial": 1.0}),
        (["estimator=reinmax", "task=structured_prediction"], {"name": "constant", "initial": 1.4}),
    ],
)
def test_an_estimator_chooses_its_temperature_unless_it_is_given(overrides, temperature):
    chosen = compose("train", [*overrides, "paths.output_dir=x"])["temperature"]
    assert {key: chosen[key] for key in temperature} == temperature


def test_estimators_get_the_same_time():
    """More steps for those with fast ones; those that draw several codes get none besides."""

    def run(*overrides):
        return compose("train", ["experiment=choosing", "paths.output_dir=x", *overrides])

    def epochs(*overrides):
        trainer = run(*overrides)["trainer"]
        return trainer["max_epochs"], trainer["max_epochs"] * trainer["limit_train_batches"]

    assert epochs() == (5, 5.0)
    assert epochs("estimator=gumbel_rao", "_times.gumbel_rao=1.25") == (4, 4.0)
    assert epochs("estimator=zgr", "_times.zgr=1.6") == (4, 3.125)
    assert epochs("estimator=zgr", "_times.zgr=0.5") == (10, 10.0)
    assert run("estimator=zgr")["objective"]["num_samples"] == 4
    assert run("estimator=carms")["objective"]["num_samples"] == 1
    with pytest.raises(Exception, match="an estimator whose time is known, one of gumbel_softmax"):
        run("estimator=exact")
    choosing = OmegaConf.load(CONFIGS / "experiment" / "choosing.yaml")
    assert set(choosing["_times"]) == set(ESTIMATORS) - {"exact"}
