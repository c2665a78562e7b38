"""Random combinations of options train, or are refused in one line."""

import math
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dvae.commands.checking import check
from dvae.commands.cli import _USER_ERRORS, CONFIGS, compose
from dvae.commands.train import train
from dvae.training.config import RunConfig

SMALL = [
    "debug=fast",
    "trainer.progress_bar=false",
    "trainer.accelerator=cpu",
    "data.eval_batch_size=20",
    "callbacks=none",
]
GROUPS = {
    group: sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))
    for group in ("task", "model", "prior", "estimator", "temperature", "objective", "optimizer")
}
VALUES = {
    "model.num_latents": [1, 2, 4, 0, -1, "null"],
    "model.num_categories": [2, 3, 10, 1, 2.5],
    "model.hidden": ["[8]", "[8,8]", "[]", 8, "[0]"],
    "model.normalization": ["none", "batch", "layer", "other"],
    "model.activation": ["relu", "tanh", "os.system"],
    "model.base_rates": ["true", "false", 1],
    "model.num_layers": [1, 3, 0],
    "data.batch_size": [2, 7, 128, 1, 10**6],
    "data.binarization": ["dynamic", "fixed", "none", "grey"],
    "data.validation": [0, 20, 59_000, 60_000, -1],
    "temperature.initial": [0.1, 1, 1e-3, 100.0, 0, "nan", -1],
    "temperature.minimum": [0.05, 0.5, 0.0, "inf"],
    "temperature.steps": [0, 1, 0.5, 1.0, 2.5, -1],
    "temperature.update_every": [1, 3, 0],
    "estimator.num_samples": [1, 2, 20, 0],
    "estimator.gap": [0, 0.5, -1],
    "estimator.decay": ["null", 0.0, 0.9, 1],
    "objective.num_samples": [1, 2, 5, 0],
    "objective.beta": [0, 0.5, 4, -1, "nan"],
    "objective.warmup": [0, 1, 0.5, 3.5],
    "objective.kl": ["discrete", "relaxed", "mean"],
    "objective.prior_temperature": [0.5, "null", 0],
    "optimizer.lr": [1e-4, 0.1, 100.0, 1e30, 0, "nan"],
    "optimizer.weight_decay": [0, 0.1, -1],
    "optimizer.schedule": ["cosine", "constant", "step"],
    "optimizer.warmup": [0, 1, 0.5, -0.5],
    "trainer.gradient_clip": [0, 1, -1],
    "trainer.steps_per_call": [1, 3, 0],
    "trainer.limit_train_batches": [1, 2, 3],
    "precision": [32, 64, "bf16", 8],
    "on_nonfinite": ["stop", "skip", "ignore"],
    "seed": [0, 123, -1],
    "test_samples": [0, 3, -1],
}

outcomes: Counter[str] = Counter()
group_choices = st.dictionaries(
    st.sampled_from(sorted(GROUPS)), st.integers(0, 99), max_size=3
).map(lambda chosen: {group: GROUPS[group][i % len(GROUPS[group])] for group, i in chosen.items()})
value_choices = st.dictionaries(st.sampled_from(sorted(VALUES)), st.integers(0, 5), max_size=3).map(
    lambda chosen: {key: VALUES[key][i % len(VALUES[key])] for key, i in chosen.items()}
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("options")


@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(groups=group_choices, values=value_choices)
def test_any_options_train_or_are_refused(folder, data_dir, groups, values):
    chosen = [f"{key}={value}" for key, value in {**groups, **values}.items()]
    own = [f"paths.data_dir={data_dir}", f"paths.output_dir={folder}"]
    line = None
    try:
        metrics = train(check(RunConfig, compose("train", [*SMALL, *own, *chosen])))
    except _USER_ERRORS as error:
        line = str(error)
    if line is None:
        outcomes["trained"] += 1
        assert metrics, chosen
        assert all(math.isfinite(value) for value in metrics.values()), chosen
    else:
        outcomes["refused"] += 1
        assert line, chosen


def test_some_combinations_train_and_some_are_refused():
    assert outcomes["trained"] >= 5
    assert outcomes["refused"] >= 5
