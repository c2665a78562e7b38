import json

import pytest

from dvae.benchmark import benchmark
from dvae.cli import compose
from dvae.config import parse
from dvae.errors import UserError
from dvae.schemas import BenchmarkConfig


def config_of(tmp_path, data_dir, *overrides: str) -> BenchmarkConfig:
    own = [
        f"paths.data_dir={data_dir}",
        f"paths.output_dir={tmp_path}",
        'shared=["model.hidden=[8]","trainer.accelerator=cpu"]',
        *("rounds=2", "steps=3", "warmup=1"),
    ]
    return parse(BenchmarkConfig, compose("benchmark", [*own, *overrides]))


def test_more_work_takes_longer(tmp_path, data_dir):
    cases = ["estimator=gumbel_softmax", "estimator=gumbel_rao estimator.num_samples=100"]
    timings = benchmark(config_of(tmp_path, data_dir, f"cases={json.dumps(cases)}"))
    assert [timing.case for timing in timings] == cases
    assert timings[0].ratio == 1.0
    assert timings[1].ratio > 1.5
    written = json.loads((tmp_path / "benchmark.json").read_text())
    assert [row["milliseconds"] for row in written] == [t.milliseconds for t in timings]


def test_every_default_case_trains(tmp_path, data_dir):
    timings = benchmark(config_of(tmp_path, data_dir, "rounds=1"))
    assert len(timings) == 11


def test_a_wrong_case_is_refused_before_anything_runs(tmp_path, data_dir):
    config = config_of(tmp_path, data_dir, 'cases=["estimator=exact"]')
    with pytest.raises(UserError, match="estimator=exact: expected at most"):
        benchmark(config)
    assert not (tmp_path / "benchmark.json").exists()
