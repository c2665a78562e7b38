"""Sweeps end with a table and a plot, ranked by validation."""

import csv
import json
import math
import os
import subprocess
import sys
from dataclasses import replace

import pytest
from matplotlib.figure import Figure
from omegaconf import OmegaConf

from dvae.commands.cli import CONFIGS, ROOT
from dvae.errors import OtherRunError, UserError
from dvae.runs import plot as sweep_plot
from dvae.runs.folder import record, run_in_folder
from dvae.runs.ranking import rank, swept_keys
from dvae.runs.results import find_runs
from dvae.runs.summary import command, summarize


def _write(folder, overrides, val, *, test=-1.0, state="finished", reason=None):
    """Writes the files of a run."""
    (folder / ".hydra").mkdir(parents=True)
    OmegaConf.save(OmegaConf.create(overrides), folder / ".hydra" / "overrides.yaml")
    error = None if state == "finished" else UserError(reason)
    record(folder, error, state=state, seconds=2.0)
    if val is not None:
        (folder / "metrics.json").write_text(json.dumps({"val/elbo": val, "test/elbo": test}))


def _grid(path, **values):
    """Writes a finished run for each combination of the values of one or two keys."""
    (x, xs), (y, ys) = [*values.items(), ("trainer.max_epochs", [1])][:2]
    for a in xs:
        for b in ys:
            _write(
                path / f"{a},{b}",
                [f"{x.replace('__', '.')}={a}", f"{y.replace('__', '.')}={b}"],
                -len(f"{a}{b}"),
            )


def test_settings_are_ranked_by_validation_over_seeds(tmp_path, capsys):
    fixed = ["+sweep=temperature", "model.hidden=[8]"]
    for minimum, values in {"0.1": (-100, -104), "0.3": (-101, -101.5), "0.5": (-90, None)}.items():
        for seed, val in enumerate(values):
            # The setting that is best on the test set is worst on validation.
            state = "failed" if val is None else "finished"
            overrides = [*fixed, f"temperature.minimum={minimum}", f"seed={seed}"]
            test = -val if val else 0
            _write(
                tmp_path / f"{minimum},{seed}",
                overrides,
                val,
                test=test,
                state=state,
                reason="full disk",
            )
    settings = summarize(tmp_path)
    assert [s.values for s in settings] == [
        {"temperature.minimum": m} for m in ("0.5", "0.3", "0.1")
    ]
    assert settings[1].mean("val/elbo") == -101.25
    assert settings[2].error("val/elbo") == pytest.approx(2.0)
    assert math.isnan(settings[0].error("val/elbo"))
    # The differences of the pairs are −1 and 2.5; only one seed is shared with the best.
    assert settings[2].behind(settings[1]) == (0.75, pytest.approx(1.75))
    assert settings[1].behind(settings[0]) == (11.0, pytest.approx(math.nan, nan_ok=True))
    apart = [replace(settings[1], runs=[run]) for run in settings[1].runs]
    assert all(math.isnan(value) for value in apart[0].behind(apart[1]))
    out = capsys.readouterr().out
    assert "dvae train 'model.hidden=[8]' temperature.minimum=0.5 seed=0" in out
    assert "full disk" in out
    assert "behind the best" in out
    with (tmp_path / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    assert rows[-1] | {"run": "0.5,1", "seed": "1", "state": "failed", "val/elbo": ""} == rows[-1]
    assert rows[0]["temperature.minimum"] == "0.1"
    assert rows[0]["seconds"] == "2.0"
    assert (tmp_path / "sweep.png").stat().st_size > 0


def test_the_best_setting_of_each_value_is_shown_with_its_command(tmp_path, capsys, monkeypatch):
    values = {("zgr", "0.1"): -9, ("zgr", "0.2"): -7, ("rloo", "0.1"): -8, ("rloo", "0.2"): -11}
    for (estimator, lr), val in values.items():
        _write(
            tmp_path / f"{estimator},{lr}", [f"estimator={estimator}", f"optimizer.lr={lr}"], val
        )
    drawn = []
    monkeypatch.setattr(sweep_plot, "plot", lambda _, settings: drawn.extend(settings))
    settings = summarize(tmp_path, "estimator")
    assert [tuple(s.values.values()) for s in settings] == [("zgr", "0.2"), ("rloo", "0.1")]
    assert [s.values for s in drawn] == [{"estimator": "zgr"}, {"estimator": "rloo"}]
    out = capsys.readouterr().out
    for estimator, lr in (("zgr", "0.2"), ("rloo", "0.1")):
        assert f"{estimator}  dvae train estimator={estimator} optimizer.lr={lr} seed=0" in out
    assert "behind the best" not in out, "all seeds are single"
    assert len((tmp_path / "sweep.csv").read_text().splitlines()) == 5
    with pytest.raises(UserError, match="expected a swept key, one of estimator, optimizer.lr, fo"):
        summarize(tmp_path, "seed")


def test_long_settings_are_shown_whole(tmp_path, capsys):
    keys = {f"model.option_{i}": "a_value_that_is_long" * 3 for i in range(4)}
    for state in ("finished", "failed"):
        overrides = [f"{key}={value}" for key, value in keys.items()]
        _write(tmp_path / f"{state}_{'run' * 60}", overrides, -1.0, state=state, reason="full disk")
        keys = {key: value * 2 for key, value in keys.items()}
    summarize(tmp_path)
    assert "…" not in capsys.readouterr().out


def test_settings_are_not_ranked_without_validation_images(tmp_path, capsys):
    for lr in ("1", "2"):
        _write(tmp_path / lr, [f"optimizer.lr={lr}"], -1.0)
        (tmp_path / lr / "metrics.json").write_text(json.dumps({"test/elbo": -float(lr)}))
    summarize(tmp_path)
    out = " ".join(capsys.readouterr().out.split())
    assert "hence not ranked" in out
    assert "best run" not in out


@pytest.mark.parametrize(
    ("values", "lines", "maps"),
    [
        ({"temperature__minimum": [0.1, 0.3, 0.5], "estimator": ["zgr", "rloo"]}, 2, 0),
        ({"temperature__minimum": [0.1, 0.3, 0.5], "temperature__steps": ["0", "1.0"]}, 2, 0),
        ({"model__num_latents": [5, 10, 20], "model__num_categories": [2, 4, 8]}, 0, 1),
        ({"estimator": ["zgr", "rloo"]}, 1, 0),
        ({"seed": [0, 1]}, 1, 0),
    ],
    ids=["lines", "two numbers, two values", "grid", "names", "seeds"],
)
def test_the_kind_of_plot_depends_on_the_swept_keys(tmp_path, monkeypatch, values, lines, maps):
    drawn = []
    for name in ("_line", "_heat_map"):
        draw = getattr(sweep_plot, name)
        monkeypatch.setattr(
            sweep_plot, name, lambda *a, n=name, d=draw, **k: (drawn.append(n), d(*a, **k))
        )
    _grid(tmp_path, **values)
    summarize(tmp_path)
    assert (drawn.count("_line"), drawn.count("_heat_map")) == (lines, maps)


def test_the_plot_of_a_search_has_a_panel_for_each_key(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(sweep_plot, "_line", lambda *a, **k: drawn.append(a[2]))
    for i in range(8):
        overrides = [f"optimizer.lr={i / 100}", f"temperature.minimum={i / 10}", "estimator=zgr"]
        _write(tmp_path / str(i), overrides, -i)
    summarize(tmp_path)
    assert drawn == ["optimizer.lr", "temperature.minimum"]


def test_names_on_the_axis_are_in_the_order_of_the_ranking(tmp_path):
    for name, val in {"zgr": -2, "carms": -3, "rloo": -1}.items():
        _write(tmp_path / name, [f"estimator={name}"], val)
    axis = Figure().subplots()
    sweep_plot._line(axis, rank(find_runs(tmp_path)), "estimator")
    assert [label.get_text() for label in axis.get_xticklabels()] == ["rloo", "zgr", "carms"]


def test_runs_in_progress_are_read(tmp_path):
    _write(tmp_path / "a", ["seed=3"], None, state="running")
    [run] = find_runs(tmp_path)
    assert (run.state, run.seed) == ("failed", 3)
    record(tmp_path / "a")
    assert find_runs(tmp_path)[0].state == "running"
    status = json.loads((tmp_path / "a" / "status.json").read_text())
    ended = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True
    )
    (tmp_path / "a" / "status.json").write_text(json.dumps(status | {"pid": int(ended.stdout)}))
    assert find_runs(tmp_path)[0].state == "interrupted"
    assert rank(find_runs(tmp_path)) == []


def test_a_finished_run_is_not_repeated_and_other_settings_are_refused(make_config):
    config = make_config()
    calls = []

    def train(config):
        calls.append(config.resume)
        OmegaConf.save(config.model_dump(), f"{config.paths.output_dir}/config.yaml")
        (last := f"{config.paths.output_dir}/checkpoints/last.ckpt")
        os.makedirs(os.path.dirname(last), exist_ok=True)
        open(last, "w").close()
        if len(calls) == 1:
            raise KeyboardInterrupt
        with open(f"{config.paths.output_dir}/metrics.json", "w") as file:
            json.dump({"val/elbo": -7.0}, file)
        return {"val/elbo": -7.0}

    with pytest.raises(KeyboardInterrupt):
        run_in_folder(config, train)
    for _ in range(2):
        assert run_in_folder(config, train) == -7.0
    assert [call is not None and call.endswith("last.ckpt") for call in calls] == [False, True]
    other = make_config("optimizer.lr=0.5")
    with pytest.raises(OtherRunError, match=r"optimizer.lr: expected 0.02, as in .* found 0.5"):
        run_in_folder(other, train)
    assert len(calls) == 2


@pytest.mark.parametrize("found", ["none", "no folder"])
def test_a_folder_without_runs_is_refused(tmp_path, found):
    path = tmp_path if found == "none" else tmp_path / "nowhere"
    script = [sys.executable, str(ROOT / "scripts" / "summarize.py"), str(path)]
    result = subprocess.run(script, capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr == f"error: {path}: expected a folder with runs in it, found {found}\n"


@pytest.mark.parametrize("preset", sorted(path.stem for path in (CONFIGS / "sweep").glob("*.yaml")))
def test_every_value_of_a_preset_composes(make_config, preset):
    content = OmegaConf.load(CONFIGS / "sweep" / f"{preset}.yaml")
    params = content.hydra.sweeper.params
    assert content.hydra.mode == "MULTIRUN"
    assert len(params) > 1
    for key, values in params.items():
        for value in str(values).split(",") if "(" not in str(values) else []:
            make_config(f"{key}={value}")
    # A preset holds nothing but the search space, so the command of a run does not need it.
    assert set(content) <= {"defaults", "hydra"}


def test_commands_are_quoted_for_the_shell(tmp_path):
    _write(tmp_path / "a", ["+sweep=latents", "model.hidden=[8,4]", "seed=1"], -1.0)
    runs = find_runs(tmp_path)
    assert command(runs[0]) == "dvae train 'model.hidden=[8,4]' seed=1"
    assert swept_keys(runs) == []


@pytest.mark.parametrize(
    ("launcher", "message"),
    [("jobli", "hydra/launcher: expected one of basic, joblib, ray, slurm"), ("ray", "extra ray")],
)
def test_a_wrong_launcher_is_refused_with_advice(launcher, message):
    from dvae.commands.cli import _no_option

    assert message in _no_option("hydra/launcher", launcher)


SEARCHED = {
    "interval(0.5,1.0)": ("float", "1.0"),
    "interval(0.5,1)": ("float", "1.0"),
    "tag(log,interval(0.5,1))": ("float", "1.0"),
    "float(interval(0,1))": ("float", "1.0"),
    "interval(10.0,2000.0)": ("float", "2000.0"),
    "interval(1e-05,1.0)": ("float", "1.0"),
    "interval(1,8)": ("float", "8.0"),
    "int(interval(1,8))": ("int", "8"),
    "tag(log,int(interval(1,8)))": ("int", "8"),
    "choice(0.5,1)": ("choice", "1.0"),
    "choice(0,0.5)": ("choice", "0.5"),
    "0.5,1": ("choice", "1.0"),
    "range(0.5,1.5,0.5)": ("choice", "1.0"),
    "range(0,1.5,0.5)": ("choice", "1.0"),
    "choice(0.5,500)": ("choice", "500"),
    "choice(0,1)": ("choice", "1"),
    "range(1,9)": ("choice", "8"),
    "choice(true,0.5,1)": ("choice", "1.0"),
}


@pytest.mark.parametrize("space", SEARCHED)
def test_a_search_hands_on_numbers_of_their_kind(space):
    """1.0 is all of a run, and 1 is a step: the last value of a space keeps its kind."""
    pytest.importorskip("optuna")
    from hydra.core.override_parser.overrides_parser import OverridesParser

    from hydra_plugins.dvae_optuna import _distribution, _text

    [override] = OverridesParser.create().parse_overrides([f"temperature.steps={space}"])
    distribution = _distribution(override)
    kind, last = SEARCHED[space]
    assert type(distribution).__name__.lower().startswith({"choice": "categorical"}.get(kind, kind))
    value = distribution.choices[-1] if kind == "choice" else distribution.high
    assert _text(value) == last


@pytest.mark.parametrize("value", [0.5, 1.0, 0.99999, 1234567.0, 1e-9, -3.0, 1e300])
def test_a_float_reaches_a_run_as_a_float(value):
    from hydra.core.override_parser.overrides_parser import OverridesParser

    from hydra_plugins.dvae_optuna import _text

    [override] = (OverridesParser.create().parse_override(f"key={_text(value)}"),)
    assert isinstance(override.value(), float)
    assert override.value() == pytest.approx(value, rel=1e-3)


@pytest.mark.parametrize(
    "space", ["interval(1.0,0.5)", "tag(log,interval(0.0,1.0))", "tag(log,int(interval(0,8)))"]
)
def test_an_impossible_interval_is_refused(space):
    pytest.importorskip("optuna")
    from hydra.core.override_parser.overrides_parser import OverridesParser

    from hydra_plugins.dvae_optuna import _distribution

    [override] = OverridesParser.create().parse_overrides([f"optimizer.lr={space}"])
    with pytest.raises(UserError, match="optimizer.lr: expected an interval from a smaller to a"):
        _distribution(override)


def test_tensorboard_shows_the_pictures_of_every_validation(tmp_path, capsys):
    folder = tmp_path / "a sweep"
    for epochs, every in ((40, 2), (30, 1)):
        run = folder / f"{epochs}"
        _write(run, [f"trainer.max_epochs={epochs}"], -1.0)
        trainer = {"max_epochs": epochs, "validate_every": every}
        OmegaConf.save(OmegaConf.create({"trainer": trainer, "task": "vae"}), run / "config.yaml")
    summarize(folder)
    out = capsys.readouterr().out
    assert f"tensorboard --logdir '{folder}' --samples_per_plugin images=30\n" in out
