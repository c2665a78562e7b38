"""A run says when a schedule does not do what its name promises."""

import pytest

from dvae.commands.schedule import show
from dvae.commands.train import train

TOTAL = 1000
RATE = "temperature=exponential temperature.steps=null temperature.rate"
ONE = "; 1 means one, 1.0 means all"
# Options, what happens, and why.
REMARKS = [
    ("temperature.minimum=1.0", "temperature: stays at 1", "minimum equals temperature.initial"),
    ("temperature.initial=0.2", "temperature: stays at 0.2", "minimum equals temperature.initial"),
    ("temperature.steps=0", "temperature: stays at 0.2, in 1,000 steps", "temperature.steps=0"),
    (
        "temperature.steps=1",
        "temperature: is at its minimum of 0.2 after one step, in 1,000 steps",
        f"temperature.steps=1{ONE}",
    ),
    ("temperature=exponential temperature.steps=1", "0.2 after one step", f"steps=1{ONE}"),
    (
        "temperature.steps=2000",
        "temperature: ends at 0.6, above temperature.minimum=0.2, in 1,000 steps",
        "temperature.steps=2000",
    ),
    ("temperature=linear temperature.steps=4000", "temperature: ends at 0.8", "steps=4000"),
    ("temperature=exponential temperature.steps=2000", "ends at 0.447, above", "steps=2000"),
    (f"{RATE}=0.0", "temperature: stays at 1, in 1,000 steps", "temperature.rate=0.0"),
    (f"{RATE}=1e-4", "temperature: ends at 0.905, above", "temperature.rate=0.0001"),
    (
        "temperature.update_every=1000 temperature.steps=0.5",
        "temperature: stays at 1, in 1,000 steps",
        "temperature.steps=0.5 with temperature.update_every=1000",
    ),
    ("optimizer.warmup=1000", "learning rate: rises to 0.02 and never falls", "warmup=1000"),
    ("optimizer.warmup=1999", "learning rate: rises to 0.01 and never falls", "warmup=1999"),
    ("optimizer.warmup=1.0", "and never falls, in 1,000 steps", f"optimizer.warmup=1.0{ONE}"),
    (
        "optimizer.warmup=1999 optimizer.schedule=constant",
        "learning rate: rises to 0.01, in 1,000 steps",
        "optimizer.warmup=1999",
    ),
    ("objective.warmup=2000", "beta: ends at 0.5, below objective.beta=1", "warmup=2000"),
    ("objective.warmup=1", "beta: is at objective.beta=1 after one step", f"warmup=1{ONE}"),
    ("trainer.limit_train_batches=1", "batches: an epoch has one step", f"train_batches=1{ONE}"),
    ("trainer.limit_eval_batches=1", "validation and test use one batch", f"eval_batches=1{ONE}"),
]


@pytest.mark.parametrize(("options", "what", "why"), REMARKS, ids=[row[0] for row in REMARKS])
def test_an_unexpected_schedule_is_remarked_on(make_config, options, what, why):
    [line] = make_config(*options.split()).remarks(TOTAL)
    before, _, after = line.partition(", because ")
    assert what in before
    assert after.endswith(why)
    assert "\n" not in line


@pytest.mark.parametrize(
    "options",
    [
        "",
        "temperature=linear",
        "temperature=exponential",
        "temperature=constant",
        "estimator=zgr temperature=none",
        "temperature.steps=1000",
        "temperature.steps=2",
        "temperature.update_every=10",
        "optimizer.warmup=999",
        "optimizer.warmup=1",
        "optimizer.schedule=constant",
        "objective.warmup=1.0",
        "objective.warmup=1000",
        "trainer.limit_train_batches=1.0",
        "trainer.limit_eval_batches=2",
    ],
)
def test_there_is_no_remark_on_an_ordinary_schedule(make_config, options):
    assert make_config(*options.split()).remarks(TOTAL) == []


@pytest.mark.parametrize("task", ["vae", "structured_prediction", "semi_supervised", "policy"])
def test_every_task_remarks(make_config, task):
    [line] = make_config(f"task={task}", "temperature=cosine", "temperature.minimum=1.0").remarks(9)
    assert line.startswith("temperature: stays at 1,")


def test_the_line_is_printed_once_when_a_run_starts(make_config, capsys):
    small = ["debug=fast", "model.hidden=[8]", "data.eval_batch_size=50", "callbacks=none"]
    config = make_config(*small, "temperature.minimum=1.0", "trainer.progress_bar=true")
    train(config)
    out = capsys.readouterr().out
    assert out.count("temperature: stays at 1,") == 1
    assert out.index("temperature: stays") < out.index("epoch 1/1")
    show(config)
    assert "temperature: stays at 1," in capsys.readouterr().out
