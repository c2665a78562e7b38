import json
import math

import pytest
from torch.utils.tensorboard import SummaryWriter

from dvae.benchmark.options import BenchmarkConfig
from dvae.benchmark.quality import Curve, read_curve, time_to_quality
from dvae.commands.checking import check
from dvae.commands.cli import compose
from dvae.errors import UserError


def config_of(tmp_path, data_dir, *overrides: str) -> BenchmarkConfig:
    own = [f"paths.data_dir={data_dir}", f"paths.output_dir={tmp_path}"]
    return check(BenchmarkConfig, compose("benchmark", ["suite=time_to_quality", *own, *overrides]))


def test_the_first_validation_that_is_good_enough_counts():
    curve = Curve("train", 0, [10.0, 20.0, 30.0, 40.0], [-120.0, -101.0, -99.0, -100.0])
    assert [curve.time_to(target) for target in (130, 101, 100, 98)] == [10, 20, 30, math.inf]


def test_a_curve_is_read_from_events(tmp_path):
    with SummaryWriter(tmp_path) as board:
        for number in range(3):
            board.add_scalar("val/elbo", -200.0 + number, number, walltime=1000 + 10 * number)
    curve = read_curve("train", 1, tmp_path, start=995)
    assert curve == Curve("train", 1, [5.0, 15.0, 25.0], [-200.0, -199.0, -198.0])


def test_a_tutorial_and_a_run_are_timed(tmp_path, data_dir):
    cases = ["tutorial", "train callbacks=none"]
    few = ["data.validation=58000", "data.batch_size=1000", "trainer.limit_eval_batches=1"]
    small = [*few, "model.hidden=[8]", "test_samples=0"]
    options = [
        f"cases={json.dumps(cases)}",
        f"relative_to={cases[0]}",
        f"shared={json.dumps([*small, 'trainer.max_epochs=2', 'trainer=cpu'])}",
        "targets=[1000.0,1.0]",
    ]
    curves = time_to_quality(config_of(tmp_path, data_dir, *options))
    assert [curve.case for curve in curves] == cases
    for curve in curves:
        assert len(curve.elbo) == 2
        assert 0 < curve.seconds[0] < curve.seconds[1] < 300
        assert curve.time_to(1000) == curve.seconds[0]
        assert curve.time_to(1) == math.inf
    written = json.loads((tmp_path / "time_to_quality.json").read_text())
    assert [row["elbo"] for row in written["curves"]] == [curve.elbo for curve in curves]
    assert (tmp_path / "time_to_quality.png").stat().st_size > 1000


@pytest.mark.parametrize("case", ["train estimator=exact", "floor", "train lr=1"])
def test_a_wrong_case_is_refused_before_anything_runs(tmp_path, data_dir, case):
    options = [f'cases=["{case}"]', f'relative_to="{case}"']
    with pytest.raises(Exception, match="estimator=exact: expected|cases: expected each|lr"):
        time_to_quality(config_of(tmp_path, data_dir, *options))
    assert not any(tmp_path.iterdir())


def test_a_run_that_fails_is_reported(tmp_path, data_dir):
    case = "train data.batch_size=60000"
    options = [f'cases=["{case}"]', f"relative_to='{case}'"]
    with pytest.raises(UserError, match="expected exit code 0, found 2: .*data.batch_size"):
        time_to_quality(config_of(tmp_path, data_dir, *options))
