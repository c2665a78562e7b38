import pytest

from dvae.commands.checking import check
from dvae.commands.cli import CONFIGS, compose
from dvae.errors import UserError, nearest
from dvae.tasks.options import EvaluateConfig, SampleConfig
from dvae.training.config import RunConfig

GROUPS = ["data", "model", "prior", "estimator", "temperature", "objective", "optimizer", "trainer"]
OPTIONS = [
    f"{group}={path.stem}"
    for group in [*GROUPS, "callbacks", "debug", "experiment"]
    for path in sorted((CONFIGS / group).glob("*.yaml"))
]


# Further overrides that an option needs.
COMPANIONS = {
    "estimator=exact": ["model.num_latents=4", "model.num_categories=8", "objective.num_samples=1"],
    "temperature=none": ["estimator=zgr"],
    "data=arrays": [
        "data.train=train.npy",
        "data.test=test.npy",
        "data.size=28",
        "data.channels=1",
    ],
    "data=episodes": ["task=policy"],
    "data=folder": ["data.root=pictures", "likelihood=discretized_logistic"],
    **{
        f"data={name}": ["likelihood=discretized_logistic"]
        for name in ("celeba", "cifar10", "cifar100", "svhn")
    },
    "data=labelled_mnist": ["task=semi_supervised"],
    "model=actor_critic": ["task=policy"],
    "model=class_style": ["task=semi_supervised"],
    "model=stochastic": ["task=structured_prediction"],
    "objective=labels": ["task=semi_supervised"],
    "objective=likelihood": ["task=structured_prediction"],
}


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_composes(option):
    own = ["paths.data_dir=data", "paths.output_dir=run"]
    check(RunConfig, compose("train", [option, *COMPANIONS.get(option, []), *own]))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["temperature=exponential", "temperature.rate=1.0"],
            "temperature.rate, temperature.steps",
        ),
        (["estimator=zgr", "temperature=linear"], "temperature: expected none with estimator=zgr"),
        (["estimator=reinforce", "temperature=constant"], "temperature: expected none"),
        (["estimator=reinmax", "temperature=none"], "temperature: expected a schedule with"),
        (["objective=iwae", "estimator=rloo"], "estimator: expected one whose gradient passes"),
        (["objective=vimco", "estimator=rloo"], "estimator: expected reinforce with"),
        (["objective=vimco", "estimator.decay=0.9"], "estimator: expected reinforce with"),
        (
            ["objective=iwae", "objective.num_samples=1"],
            "objective.num_samples: expected at least 2",
        ),
        (["estimator=exact"], "estimator=exact: expected at most 16,384 codes"),
        (["objective.kl=relaxed"], "objective.prior_temperature: expected a number"),
        (["objective.prior_temperature=0.5"], "objective.prior_temperature: expected null"),
        (
            ["objective.kl=relaxed", "objective.prior_temperature=0.5", "estimator=reinmax"],
            "estimator: expected gumbel_softmax with objective.kl=relaxed",
        ),
        (["precision=16", "trainer.gradient_clip=1.0"], "trainer.gradient_clip: expected 0.0"),
        (["data.validation=0", "callbacks.early_stopping=3"], "callbacks.early_stopping: expected"),
    ],
)
def test_wrong_pairings_are_refused(make_config, overrides, message):
    with pytest.raises(UserError, match=message):
        make_config(*overrides)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("temperature.minimum=-1", "temperature.minimum: expected greater than 0, found -1"),
        ("temperature.minimum=nan", "temperature.minimum: expected a finite number, found nan"),
        ("temperature.minimum=2.0", "temperature.minimum: expected at most temperature.initial=1"),
        ("temperature.steps=1.5", "temperature.steps: expected a whole number >= 0 or a fraction"),
        ("temperature.steps=-1", "temperature.steps: expected a whole number >= 0 or a fraction"),
        ("model.num_categories=1", "model.num_categories: expected greater than or equal to 2"),
        ("model.hidden=[0]", "model.hidden.0: expected greater than or equal to 1, found 0"),
        ("model.hidden=5", "model.hidden: expected a valid list, found 5"),
        ("model.activation=sliu", "model.activation: .* found 'sliu'; did you mean silu?"),
        ("model.name=mpl", "model.name: .* found 'mpl'; did you mean mlp?"),
        ("+optimizer.lrr=1", "optimizer.lrr: no such key; did you mean lr?"),
        ("seed=-3", "seed: expected greater than or equal to 0, found -3"),
        ("seed=x", "seed: expected a valid integer, found 'x'"),
        ("precision=8", "precision: expected one of .* found 8"),
        ("compile=1", "compile: expected a valid boolean, found 1"),
        ("data.batch_size=1", "data.batch_size: expected greater than or equal to 2, found 1"),
        ("resume=nowhere.ckpt", "resume: expected a file, found nothing at nowhere.ckpt"),
    ],
)
def test_wrong_values_are_refused_in_one_line(make_config, override, message):
    with pytest.raises(UserError, match=message.replace("?", r"\?")) as caught:
        make_config(override)
    assert "\n" not in str(caught.value)


def test_all_mistakes_are_reported(make_config):
    with pytest.raises(UserError, match="seed: .*; compile: "):
        make_config("seed=-1", "compile=2")


def test_a_missing_checkpoint_is_refused():
    for name, schema in (("evaluate", EvaluateConfig), ("sample", SampleConfig)):
        values = compose(name, ["checkpoint=nowhere.ckpt"])
        with pytest.raises(
            UserError, match="checkpoint: expected a file, found nothing at nowhere"
        ):
            check(schema, values)


@pytest.mark.parametrize("values", [None, [], 3, {}, {"data": None}, {"data": {"name": 1}}])
def test_values_that_are_no_configuration_are_refused(values):
    with pytest.raises(UserError):
        check(RunConfig, values)


def test_a_checked_configuration_survives_a_round_trip(make_config):
    config = make_config("temperature.steps=100", "model.hidden=[7]")
    assert check(RunConfig, config.model_dump()) == config


def test_nearest():
    keys = ["optimizer.lr", "trainer", "temperature.minimum"]
    assert nearest("train.lrr", keys) == "; did you mean optimizer.lr?"
    assert nearest("temprature.minimum", keys) == "; did you mean temperature.minimum?"
    assert nearest("zzz", keys) == ""
    assert nearest("zzz", []) == ""
