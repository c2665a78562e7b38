import json
import pickle
from multiprocessing.context import SpawnProcess

import pytest
import torch
from PIL import Image

from dvae.benchmark import cases as cases_of
from dvae.benchmark.baselines import BASELINES, floor
from dvae.benchmark.cases import benchmark
from dvae.benchmark.options import BenchmarkConfig
from dvae.benchmark.parts import PARTS
from dvae.benchmark.worker import KINDS
from dvae.commands.checking import check
from dvae.commands.cli import CONFIGS, compose
from dvae.errors import UserError

CPU = torch.device("cpu")


def config_of(tmp_path, data_dir, *overrides: str) -> BenchmarkConfig:
    own = [
        f"paths.data_dir={data_dir}",
        f"paths.output_dir={tmp_path}",
        'shared=["model.hidden=[8]","trainer.accelerator=cpu"]',
        *("rounds=2", "steps=3", "warmup=1"),
    ]
    return check(BenchmarkConfig, compose("benchmark", [*own, *overrides]))


def test_cases_take_turns_and_more_work_takes_longer(tmp_path, data_dir, capsys, monkeypatch):
    ends = []
    monkeypatch.setattr(cases_of, "_PATIENCE", 200.0)
    monkeypatch.setattr(SpawnProcess, "kill", lambda process: ends.append(process.exitcode))
    # A case may prepare a folder of images; this many are prepared by processes of its own.
    root = tmp_path / "root"
    for number in range(300):
        path = root / ("train", "train", "train", "val", "test")[number % 5] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (28, 28), number % 256).save(path)
    folder = f"data=folder data.root={root} data.size=28 data.channels=1 data.batch_size=8"
    cases = [
        f"train {folder} data.binarization=dynamic",
        "train model.hidden=[1024,1024] data.batch_size=512",
    ]
    options = [
        f"cases={json.dumps(cases)}",
        f"relative_to={json.dumps(cases[0])}",
        'extra=["model.num_latents=2"]',
        "profile=true",
    ]
    timings = benchmark(config_of(tmp_path, data_dir, *options))
    # Killed processes would leave semaphores behind, of which Python warns.
    assert ends == [0, 0]
    lines = capsys.readouterr().out.splitlines()
    turns = [line for line in lines if line.startswith("round ")]
    assert turns == [f"round {n} of 2: {case}" for n in (1, 2) for case in cases]
    # A name that does not fit goes on in the next line.
    column = "".join(line.split("│")[1].strip() for line in lines if line.startswith("│"))
    assert column == "".join(cases).replace(" ", "")
    assert [timing.case for timing in timings] == cases
    assert timings[0].ratio == 1.0
    assert timings[1].ratio > 2
    assert all(timing.mebibytes > timing.anonymous > 50 for timing in timings)
    written = json.loads((tmp_path / "benchmark.json").read_text())
    assert [row["milliseconds"] for row in written["timings"]] == [
        timing.milliseconds for timing in timings
    ]
    assert len(written["seconds"]) == 2
    assert "model.num_latents=2" in written["shared"]


@pytest.mark.parametrize("case", ["train estimator=exact", "rest", ""])
def test_a_wrong_case_is_refused_before_anything_runs(tmp_path, data_dir, case):
    config = config_of(tmp_path, data_dir, f'cases=["{case}"]', f'relative_to="{case}"')
    with pytest.raises(UserError, match="estimator=exact: expected at most|cases: expected each"):
        benchmark(config)
    assert not (tmp_path / "benchmark.json").exists()


def test_a_failing_case_is_reported(tmp_path, data_dir):
    case = "train data.batch_size=60000"
    config = config_of(tmp_path, data_dir, f'cases=["{case}"]', f"relative_to='{case}'")
    with pytest.raises(UserError, match="train data.batch_size=60000: data.batch_size: expected"):
        benchmark(config)


def test_each_kind_of_a_case_has_one_implementation():
    assert sorted(KINDS) == sorted(["train", *BASELINES, *PARTS])


def test_the_reference_is_one_of_the_cases(tmp_path, data_dir):
    with pytest.raises(UserError, match="relative_to: expected one of the cases .* found 'x'"):
        config_of(tmp_path, data_dir, "relative_to=x")


@pytest.mark.parametrize("path", sorted((CONFIGS / "suite").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_case_of_the_suites_composes(tmp_path, data_dir, path):
    from dvae.benchmark.cases import _case

    config = check(
        BenchmarkConfig,
        compose("benchmark", [f"suite={path.stem}", f"paths.output_dir={tmp_path}"]),
    )
    # A suite overrides the defaults of the script.
    assert config.steps == {"evaluation": 4, "marginalization": 20}.get(path.stem, 200)
    cases = [_case(name, config, tmp_path) for name in config.cases]
    assert len({case.name for case in cases}) == len(config.cases)
    # Cases are sent to processes.
    assert pickle.loads(pickle.dumps(cases)) == cases
    assert all(case.config.model_dump() == case.values for case in cases)


@pytest.mark.parametrize("name", sorted(BASELINES))
@pytest.mark.parametrize("options", ["model=mlp", "model=conv", "model=mlp precision=bf16"])
def test_baselines_run(make_config, name, options):
    step = BASELINES[name](make_config("data.batch_size=4", *options.split()), CPU)
    step()
    step()


def test_the_floor_computes_every_product(make_config, monkeypatch):
    """Compares with the multiplications of a 784-16-(4 × 8) network and its mirror."""
    config = make_config(
        "model.hidden=[16]",
        *("model.num_latents=4", "model.num_categories=8"),
        *("data.batch_size=10", "objective.num_samples=3", "logits=softmax"),
    )
    counted = []

    def mm(a, b, out):
        counted.append(a.shape[0] * a.shape[1] * b.shape[1])
        return out

    step = floor(config, CPU)
    monkeypatch.setattr(torch, "mm", mm)
    step()
    # Each layer has a forward product and a weight gradient; all but the first an input gradient.
    encoder = 10 * (2 * 784 * 16 + 3 * 16 * 32)
    decoder = 30 * 3 * (32 * 16 + 16 * 784)
    assert sum(counted) == encoder + decoder
