"""A run that was cut off goes on to the very numbers that it would have had."""

import json
import multiprocessing
import random
import time

import pytest
import torch
from torch.utils._pytree import tree_flatten_with_path

from dvae.cli import compose
from dvae.config import parse
from dvae.runs import run_in_folder
from dvae.schemas import TrainConfig

KILLS = 20
SMALL = [
    "trainer.progress_bar=false",
    "trainer.accelerator=cpu",
    "trainer.limit_train_batches=25",
    "trainer.limit_eval_batches=1",
    "trainer.max_epochs=4",
    "trainer.steps_per_call=3",
    "trainer.log_every=5",
    "data.eval_batch_size=100",
    "model.num_latents=3",
    "callbacks=none",
    "test_samples=2",
]
KINDS = {
    "default": ["model.hidden=[16]", "model.normalization=batch"],
    "reinforce": ["estimator=reinforce", "temperature=none", "model.hidden=[16]"],
    "momentum": ["optimizer=sgd", "objective=vimco", "data.binarization=fixed", "prior=learned"],
    "sparse": ["model.hidden=[16]", "trainer.validate_every=3", "precision=bf16"],
    "early": ["model.hidden=[16]", "callbacks.early_stopping=1", "optimizer.lr=0.3"],
}

# Processes that are forked from one that has imported everything start at once.
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["dvae.train", "dvae.cli"])


def _config(folder, data_dir, *overrides):
    own = [f"paths.data_dir={data_dir}", f"paths.output_dir={folder}"]
    return parse(TrainConfig, compose("train", [*SMALL, *own, *overrides]))


def _run(folder, data_dir, overrides):
    from dvae.train import train

    torch.set_num_threads(1)
    run_in_folder(_config(folder, data_dir, *overrides), train)


def _start(*arguments):
    process = processes.Process(target=_run, args=arguments)
    process.start()
    return process


def _end(folder):
    """Everything that a run ends with."""
    last, best = (
        torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)
        for name in ("last", "best")
    )
    states = [
        {k: c[k] for k in ("state_dict", "optimizer_states", "callbacks")} for c in (last, best)
    ]
    metrics = json.loads((folder / "metrics.json").read_text())
    return {**dict(tree_flatten_with_path(states)[0]), **metrics, "steps": last["global_step"]}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, data_dir):
    """The end of a run of each kind that nothing disturbs, and the seconds that it took."""
    ends = {}
    for kind, overrides in KINDS.items():
        folder = tmp_path_factory.mktemp(kind)
        start = time.monotonic()
        process = _start(folder, data_dir, overrides)
        process.join(60)
        assert process.exitcode == 0
        ends[kind] = _end(folder), time.monotonic() - start
    return ends


def test_the_last_checkpoint_knows_the_best(undisturbed):
    """Cut off right after it was written, a run has to find what was best by then."""
    for kind, (end, _) in undisturbed.items():
        scores = [value for key, value in end.items() if str(key).endswith("key='score'))")]
        assert scores == [end["val/elbo"]] * 2, kind


@pytest.mark.parametrize("number", range(KILLS))
def test_a_killed_run_ends_as_if_undisturbed(undisturbed, tmp_path, data_dir, number):
    kind = list(KINDS)[number % len(KINDS)]
    expected, seconds = undisturbed[kind]
    # Every moment is as likely, from the start to the test.
    moment = random.Random(number).uniform(0, seconds)
    arguments = (tmp_path, data_dir, [*KINDS[kind], "trainer.save_every=0.01"])
    process = _start(*arguments)
    process.join(moment)
    process.kill()
    process.join(60)
    process = _start(*arguments)
    process.join(60)
    assert process.exitcode == 0
    found = _end(tmp_path)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        same = torch.equal if isinstance(value, torch.Tensor) else lambda one, other: one == other
        assert same(value, found[name]), name
    assert not list(tmp_path.rglob(".*.part"))
