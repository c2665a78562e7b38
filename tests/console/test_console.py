"""The command `dvae`."""

import ast
import subprocess
import sys

import pytest

import dvae.console
from dvae.commands.cli import ROOT
from dvae.console import COMMANDS

MAIN = "from dvae.console import main; main()"


def _run(*arguments):
    command = [sys.executable, "-c", MAIN, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_every_script_is_a_command():
    scripts = {path.stem for path in (ROOT / "scripts").glob("*.py")}
    modules = {path.stem for path in (ROOT / "src" / "dvae" / "console").glob("[!_]*.py")}
    assert scripts == modules == set(COMMANDS)


def test_a_script_is_the_command(run_scripts, tmp_path):
    """Both print the same configuration."""
    arguments = ["estimator=reinmax", "--cfg", "job", "--resolve", "-p", "estimator"]
    [(code, text, _)] = run_scripts([["train.py", *arguments]], tmp_path)
    result = _run("train", *arguments)
    assert (code, text) == (result.returncode, result.stdout)
    assert "name: reinmax" in text


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], []])
def test_help_lists_the_commands(arguments, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["dvae", *arguments])
    dvae.console.main()
    text = capsys.readouterr().out
    assert all(f"  {name} " in text for name in COMMANDS)


def test_the_version(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["dvae", "--version"])
    dvae.console.main()
    assert capsys.readouterr().out == f"dvae {dvae.__version__}\n"


@pytest.mark.parametrize(
    ("word", "advice"),
    [("trian", "; did you mean train?"), ("seed=1", ""), ("--cfg", "")],
)
def test_a_wrong_command_ends_in_one_line(word, advice, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["dvae", word])
    with pytest.raises(SystemExit) as caught:
        dvae.console.main()
    assert caught.value.code == 2
    captured = capsys.readouterr()
    names = ", ".join(COMMANDS)
    assert captured.err == f"error: command: expected one of {names}, found {word!r}{advice}\n"
    assert not captured.out


def test_mistakes_of_a_command_end_in_one_line():
    result = _run("train", "optimizer.lrr=1")
    assert result.returncode == 2
    assert result.stderr == "error: optimizer.lrr: no such key; did you mean optimizer.lr?\n"


def test_processes_of_one_run_start_the_command_again():
    """Lightning starts further processes as `python`, with what sys.argv then holds."""
    code = f"{MAIN.partition(';')[0]}; import sys; main(); print(sys.argv)"
    options = ["estimator=reinmax", "--cfg", "job", "-p", "estimator"]
    first = subprocess.run(
        [sys.executable, "-c", code, "train", *options], capture_output=True, text=True, check=True
    )
    text, _, arguments = first.stdout.rstrip().rpartition("\n")
    again = [sys.executable, *ast.literal_eval(arguments)]
    result = subprocess.run(again, capture_output=True, text=True, check=True)
    assert result.stdout.rstrip() == text.rstrip()
    assert "name: reinmax" in text
