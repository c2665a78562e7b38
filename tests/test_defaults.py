"""The YAML files agree with the options classes: same members, same defaults."""

import pytest
from omegaconf import OmegaConf

from dvae.benchmark.options import BenchmarkConfig
from dvae.commands.checking import check
from dvae.commands.cli import CONFIGS, compose
from dvae.commands.options import GradientsConfig
from dvae.data.sources import SOURCES
from dvae.estimators import ESTIMATORS
from dvae.likelihoods import LIKELIHOODS
from dvae.models import OBJECTIVES
from dvae.networks import NETWORKS
from dvae.priors import PRIORS
from dvae.tasks import TASKS, find_task
from dvae.tasks.options import DataOverride, EncodeConfig, EvaluateConfig, SampleConfig
from dvae.tasks.policy.config import ActorCriticOptions, EpisodeOptions
from dvae.tasks.semi_supervised.config import ClassStyleOptions, LabelsOptions
from dvae.tasks.structured_prediction.config import (
    ConditionalLikelihoodOptions,
    StochasticOptions,
)
from dvae.training import OPTIMIZERS, TEMPERATURES
from dvae.training.config import RunConfig
from dvae.training.options import CallbackOptions, TrainerOptions

FAMILIES = {
    "data": SOURCES,
    "estimator": ESTIMATORS,
    "likelihood": LIKELIHOODS,
    "model": NETWORKS,
    "objective": OBJECTIVES,
    "optimizer": OPTIMIZERS,
    "prior": PRIORS,
    "temperature": TEMPERATURES,
}
MEMBERS = [(group, name) for group, members in FAMILIES.items() for name in members]
# Options of single tasks, and the groups without members.
OTHERS = {
    ("callbacks", "default"): CallbackOptions,
    ("data", "episodes"): EpisodeOptions,
    ("model", "actor_critic"): ActorCriticOptions,
    ("model", "class_style"): ClassStyleOptions,
    ("model", "stochastic"): StochasticOptions,
    ("objective", "labels"): LabelsOptions,
    ("objective", "likelihood"): ConditionalLikelihoodOptions,
    ("trainer", "auto"): TrainerOptions,
}


def _values(group, name):
    """The values in a file of a group, merged with those of its defaults list."""
    content = OmegaConf.load(CONFIGS / group / f"{name}.yaml")
    defaults = content.pop("defaults", [])
    values = content.get(group, {}) if group in content else content
    for base in defaults:
        if isinstance(base, str) and base != "_self_":
            below = _values(group, base.partition("@")[0])
            values = OmegaConf.merge(below, values)
    return values


def _plain(values):
    return OmegaConf.to_container(OmegaConf.create(values), resolve=True)


def _defaults(member):
    """The fields of a member with their defaults; those that must be given are `???` in YAML."""
    required = {name for name, field in member.model_fields.items() if field.is_required()}
    return member.model_construct().model_dump() | dict.fromkeys(required, "???")


@pytest.mark.parametrize(("group", "name"), MEMBERS)
def test_a_member_has_a_file_with_its_defaults(group, name):
    assert _plain(_values(group, name)) == _defaults(FAMILIES[group][name])


@pytest.mark.parametrize(("group", "name"), OTHERS)
def test_other_options_have_a_file_with_their_defaults(group, name):
    assert _plain(_values(group, name)) == OTHERS[group, name]().model_dump()


def test_a_wrong_default_is_found():
    """Control: the comparison above finds a wrong value."""
    values = _plain(_values("estimator", "gapped_st")) | {"gap": 2.0}
    assert values != ESTIMATORS["gapped_st"]().model_dump()


def _fields(schema, exclude=()):
    """Fields of a configuration that have a default value."""
    return {
        name: field.get_default(call_default_factory=True)
        for name, field in schema.model_fields.items()
        if not field.is_required() and name not in exclude
    }


@pytest.mark.parametrize(
    ("name", "schema", "overrides"),
    [
        ("train", RunConfig, ["paths.output_dir=x"]),
        ("evaluate", EvaluateConfig, ["checkpoint=x"]),
        ("sample", SampleConfig, ["checkpoint=x"]),
        ("encode", EncodeConfig, ["checkpoint=x"]),
        ("gradients", GradientsConfig, ["paths.output_dir=x"]),
        ("benchmark", BenchmarkConfig, ["paths.output_dir=x"]),
    ],
)
def test_scripts_have_files_with_the_defaults(name, schema, overrides):
    values = compose(name, overrides)
    for key, default in _fields(schema).items():
        assert values[key] == default, key
    if "data" in schema.model_fields:
        assert values["data"] == DataOverride().model_dump()


@pytest.mark.parametrize("name", TASKS)
def test_tasks_have_files_with_the_defaults(name):
    values = compose("train", [f"task={name}", "paths.output_dir=x"])
    schema = find_task(name).config
    for key, default in _fields(schema, exclude={"likelihood"}).items():
        assert values[key] == default, key
    assert check(RunConfig, values).task == name


def test_every_file_of_a_family_is_a_member_or_has_a_defaults_list():
    for group, members in FAMILIES.items():
        for path in (CONFIGS / group).glob("*.yaml"):
            known = path.stem in members or (group, path.stem) in OTHERS
            assert known or "defaults" in OmegaConf.load(path), path


def test_two_members_of_one_name_are_refused():
    from typing import Literal

    from dvae.options import Options, find_members

    class Family(Options):
        name: str = ""

    members = [
        type("Member", (Family,), {"__annotations__": {"name": Literal["a"]}, "name": "a"})
        for _ in range(2)
    ]
    for member in members:
        member.__module__ = "family.x_options"
    with pytest.raises(ValueError, match="family: expected one member with the name 'a'"):
        find_members("family", [], Family)


def test_a_member_may_have_two_bases_in_its_family():
    """The sources with labels are such classes."""
    from dvae.data.options import ImageDataOptions
    from dvae.options import find_members
    from dvae.tasks.semi_supervised.data_options import LABELLED

    package = LABELLED["mnist"].__module__.rpartition(".")[0]
    assert find_members(package, [], ImageDataOptions) == LABELLED


def test_every_task_has_a_file():
    assert sorted(path.stem for path in (CONFIGS / "task").glob("*.yaml")) == TASKS


@pytest.mark.parametrize(
    ("overrides", "rate"),
    [
        (["model=resnet"], 3e-3),
        (["model=conv"], 2e-2),
        (["model=resnet", "optimizer.lr=0.01"], 0.01),
        (["model=resnet", "optimizer=adam"], 1e-3),
    ],
)
def test_the_learning_rate_is_that_of_the_network(overrides, rate):
    assert compose("train", overrides)["optimizer"]["lr"] == rate
