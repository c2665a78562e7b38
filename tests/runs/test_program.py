"""How the program was started, and what a run records of it."""

import shlex
import subprocess
import sys
from importlib.metadata import PackageNotFoundError

import pytest

import dvae
from dvae.commands.cli import ROOT
from dvae.runs.program import own_command, program
from dvae.runs.provenance import provenance

CONSOLE = str(ROOT / "src" / "dvae" / "console" / "train.py")


@pytest.mark.parametrize(
    ("script", "printed", "own"),
    [
        ("scripts/train.py", "python scripts/evaluate.py", "scripts/train.py seed=1"),
        ("/a b/scripts/train.py", "python '/a b/scripts/evaluate.py'", "'/a b/scripts/train.py' s"),
        (CONSOLE, "dvae evaluate", "dvae train seed=1"),
        ("ipykernel_launcher.py", "dvae evaluate", "ipykernel_launcher.py seed=1"),
    ],
)
def test_printed_commands_fit_the_way_the_program_was_started(script, printed, own, monkeypatch):
    monkeypatch.setattr(sys, "argv", [script, "seed=1"])
    assert shlex.join(program("evaluate")) == printed
    assert own in own_command()


def test_the_program_runs_without_package_metadata(monkeypatch):
    """As with PYTHONPATH=src alone."""

    def version(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr("dvae.runs.provenance.version", version)
    packages = provenance()["packages"]
    assert packages["dvae"] == dvae.__version__
    assert packages["torch"] is None


def test_the_commit_is_that_of_the_source(tmp_path, monkeypatch):
    """Not that of a repository around the environment in which the package is installed."""
    file = tmp_path / "provenance.py"
    file.touch()
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    for command in (["init", "--quiet"], ["commit", "--quiet", "--allow-empty", "--message=x"]):
        subprocess.run([*git, *command], check=True)
    monkeypatch.setattr("dvae.runs.provenance.__file__", str(file))
    assert provenance()["commit"] is None
    subprocess.run([*git, "add", "."], check=True)
    assert provenance()["commit"].endswith("+")
