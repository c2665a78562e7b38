"""Paths with any characters on the command line."""

import os
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from dvae.commands.cli import compose
from dvae.options import Options, PathName, parse
from dvae.runs.arguments import is_sweep, quote_paths, quoted, text_of

NAMES = [
    *("a#b", "a&b", "a;b", "it's", 'a"b', "a b", " a", "a ", "é/ü", "日本", "(a)", "f(a)", "a)"),
    *("[a]", "a]", "{a}", "{a:1}", "50%", "$HOME", "a$b", "a\\b", "a\\", "a'\\", "\\'a", "a:b"),
    *("a*b?", "!a", "a`b", "<a>", "a^b", "a|b", "a@b", "+a", "-a", "a=1", "a=1/b", "=a", "a~b"),
    *("2024", "2024_01", "1e5", "true", "nan", "a=1,b=[2]/é 'x'", ".", "a\nb", "str(a)"),
]


def _value(argument):
    override = OverridesParser.create().parse_override(argument)
    assert not override.is_sweep_override()
    return override.value()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("key", ["checkpoint", "paths.data_dir", "hydra.run.dir", "resume"])
def test_names_are_read_as_they_are(key, name):
    [argument] = quote_paths([f"{key}={name}"])
    assert _value(argument) == name
    assert text_of(argument.partition("=")[2]) == name
    assert quote_paths([argument]) == [argument]


@pytest.mark.parametrize("flag", [["-m"], ["hydra.mode=MULTIRUN"], ["+sweep=temperature"]])
def test_names_are_read_as_they_are_in_sweeps(flag):
    """Those with a comma are separated at it, unless they exist."""
    for name in NAMES:
        if "," not in name:
            assert _value(quote_paths([*flag, f"checkpoint={name}"])[-1]) == name
    assert _value(quote_paths([*flag, "hydra.sweep.dir=a,b"])[-1]) == "a,b"


@pytest.mark.parametrize(
    "value",
    ["'a,b'", '"a b"', "'it\\'s'", "null", "${oc.env:HOME}/a", "a\\,b", "a\\=1", "'a", "a/b.ckpt"],
)
def test_what_hydra_reads_keeps_its_meaning(value):
    assert quote_paths([f"checkpoint={value}"]) == [f"checkpoint={value}"]
    assert quote_paths(["-m", f"checkpoint={value}"])[1] == f"checkpoint={value}"


def test_other_values_are_left_to_hydra():
    given = ["model.hidden=[512", "estimator=zgr,rloo", "optimizer.lr=#", "data.path=[a#/b", "x"]
    assert quote_paths(given) == given
    # A path of an extension has a slash, and Hydra cannot read it.
    assert quote_paths(["+data.folder=/a#b", "data.folder=/a/b"]) == [
        "+data.folder='/a#b'",
        "data.folder=/a/b",
    ]


def _sweep(*values):
    [override] = OverridesParser.create().parse_overrides(
        quote_paths(["-m", f"checkpoint={','.join(map(str, values))}"])[1:]
    )
    if not override.is_sweep_override():
        return [override.value()]
    texts = override.sweep_string_iterator()
    return [_value(f"checkpoint={text}") for text in texts]


def test_commas_of_a_sweep_separate_existing_files(tmp_path, monkeypatch):
    """Our own sweeps name folders by settings, such as estimator=zgr,seed=0."""
    monkeypatch.chdir(tmp_path)
    names = ["estimator=zgr,seed=0/best.ckpt", "estimator=zgr,seed=1/best.ckpt", "é,(1),[2]"]
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    assert _sweep(*names) == names
    assert _sweep(*(tmp_path / name for name in names)) == [str(tmp_path / n) for n in names]
    # What exists without its commas is not joined, and what does not exist is separated.
    for name in ("a", "b", "a,b"):
        (tmp_path / name).touch()
    assert _sweep("a", "b") == ["a", "b"]
    (tmp_path / "a").unlink()
    assert _sweep("a", "b") == ["a,b"]
    assert _sweep("a=1/none", "none#") == ["a=1/none", "none#"]
    assert len(_sweep(*names * 50)) == 150
    monkeypatch.setenv("HOME", str(tmp_path))
    assert _sweep("~/a,b", "~/b") == [str(tmp_path / "a,b"), str(tmp_path / "b")]


def test_an_existing_path_with_a_comma_is_one_value_of_a_preset(tmp_path):
    (tmp_path / "my,data").mkdir()
    for flag in ("-m", "hydra.mode=MULTIRUN", "+sweep=latents"):
        argument = quote_paths([flag, f"paths.data_dir={tmp_path}/my,data"])[1]
        assert _value(argument) == f"{tmp_path}/my,data"


def test_the_home_folder_is_expanded(monkeypatch):
    monkeypatch.setenv("HOME", "/home/a#b")
    for key in ("paths.data_dir", "hydra.run.dir", "hydra.sweep.dir", "checkpoint", "resume"):
        for value in ("~/data", "'~/data'"):
            assert _value(quote_paths([f"{key}={value}"])[0]) == "/home/a#b/data"
    assert quote_paths(["--config-dir=~/c"]) == ["--config-dir=/home/a#b/c"]
    assert _value(quote_paths(["checkpoint=./~/a"])[0]) == "./~/a"
    values = compose("train", ["paths.data_dir=~/data", "paths.output_dir=~"])
    assert values["paths"] == {"data_dir": "/home/a#b/data", "output_dir": "/home/a#b"}


def test_options_expand_the_home_folder(monkeypatch):
    """Also where a path does not come from the command line."""

    class Folder(Options):
        path: PathName

    monkeypatch.setenv("HOME", "/home/a")
    assert parse(Folder, {"path": "~/b"}).path == "/home/a/b"
    assert parse(Folder, {"path": "b/~"}).path == "b/~"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["-m"], True),
        (["--multirun"], True),
        (["hydra.mode=MULTIRUN"], True),
        (["+sweep=latents"], True),
        (["+sweep=latents", "hydra.mode=RUN"], False),
        (["hydra.mode=RUN"], False),
        (["seed=0"], False),
    ],
)
def test_sweeps_are_recognised(arguments, expected):
    assert is_sweep(arguments) == expected


def test_quotes_of_a_path():
    assert quoted(Path("a'b")) == "'a\\'b'"
    assert _value(f"checkpoint={quoted(os.path.join('a', 'b,c'))}") == "a/b,c"
