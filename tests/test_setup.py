"""`make train` mends what an earlier call, or the system, left in a bad state.

Interpreters are shell scripts here, so that nothing is installed.
"""

import os
import re
import shutil
import subprocess
import sys

import pytest

from dvae.commands.cli import ROOT

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")

# Stands for an interpreter; `-m venv` copies it, `-m pip` and scripts say what they would do.
PYTHON = """#!/bin/sh
case "$*" in
  "-m venv "*) mkdir -p $3/bin; touch $3/pyvenv.cfg; [ -e $3/bin/python ] || cp "$0" $3/bin/python;;
  "-m pip install "*) echo "installed by {name}";;
  "scripts/train.py"*) echo "trained by {name}";;
  --version) echo "Python {version}";;
  *"version_info < (3, 11)"*) exit {old};;
  *"import ensurepip"*) exit {bare};;
  "-m pip --version") exit {no_pip};;
  *"version_info >= (3, 11)"*) echo {fits};;
esac
"""


@pytest.fixture
def project(tmp_path):
    """A folder with the Makefile, and a function that makes interpreters."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "pyproject.toml").write_text("")

    def interpreter(name, *, version="3.12.1", pip=True, ensurepip=True):
        old = version.startswith("3.10")
        path = tmp_path / name
        path.write_text(
            PYTHON.format(
                name=name,
                version=version,
                old=int(old),
                fits=not old,
                no_pip=int(not pip),
                bare=int(not ensurepip),
            )
        )
        path.chmod(0o755)
        return path

    return tmp_path, interpreter


def _make(folder, *arguments):
    command = ["make", "train", *map(str, arguments)]
    # Where `make test` runs this, its variables and its level are in the environment.
    own = {key: text for key, text in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    own.pop("VENV", None)
    return subprocess.run(command, cwd=folder, env=own, capture_output=True, text=True, timeout=60)


def _error(result):
    assert result.returncode == 2
    [line] = [line for line in result.stderr.splitlines() if not line.startswith("make: ")]
    return line


def test_an_old_python_is_refused_and_leaves_nothing(project):
    folder, interpreter = project
    old, new = interpreter("old", version="3.10.12"), interpreter("new")
    line = _error(_make(folder, f"PYTHON={old}"))
    assert "expected Python 3.11 or later, found Python 3.10.12; name another" in line
    assert not (folder / ".venv").exists()
    assert "trained by new" in _make(folder, f"PYTHON={new}").stdout
    # The environment counts from now on, not the interpreter of the system.
    assert "trained by new" in _make(folder, f"PYTHON={old}").stdout


def test_no_python_at_all_is_refused(project):
    line = _error(_make(project[0], "PYTHON=nothing_here"))
    assert "expected Python 3.11 or later, found" in line
    assert "not found" in line


def test_a_python_without_venv_is_refused_and_leaves_nothing(project):
    folder, interpreter = project
    bare = interpreter("bare", ensurepip=False)
    assert "apt install python3-venv" in _error(_make(folder, f"PYTHON={bare}"))
    assert not (folder / ".venv").exists()


STATES = {"old": {"version": "3.10.12"}, "without pip": {"pip": False}, "dangling": {}}


@pytest.mark.parametrize("stamped", [False, True], ids=["", "stamped"])
@pytest.mark.parametrize("state", STATES)
def test_a_broken_environment_is_mended(project, state, stamped):
    """Also if it has once been whole, and other files in it stay."""
    folder, interpreter = project
    binaries = folder / ".venv" / "bin"
    binaries.mkdir(parents=True)
    (folder / ".venv" / "pyvenv.cfg").write_text("")
    (binaries / "other").write_text("")
    if state == "dangling":
        (binaries / "python").symlink_to(folder / "removed")
    else:
        shutil.copy(interpreter("bad", **STATES[state]), binaries / "python")
    if stamped:
        (folder / ".venv" / ".installed").write_text(f"{folder}\n")
    result = _make(folder, f"PYTHON={interpreter('new')}")
    assert result.returncode == 0, result.stderr
    assert "installed by new" in result.stdout
    assert "trained by new" in result.stdout
    assert (binaries / "other").exists()
    assert "installed" not in _make(folder).stdout.replace(".installed", "")


def test_an_environment_that_was_moved_is_installed_again(project, tmp_path):
    folder, interpreter = project
    _make(folder, f"PYTHON={interpreter('new')}")
    (folder / ".venv" / ".installed").write_text("/another/folder\n")
    assert "installed by new" in _make(folder).stdout


def test_another_folder_is_not_taken_for_an_environment(project):
    folder, interpreter = project
    (folder / "mine" / "bin").mkdir(parents=True)
    (folder / "mine" / "bin" / "python3").write_text("precious")
    line = _error(_make(folder, f"PYTHON={interpreter('new')}", "VENV=mine"))
    assert "VENV: expected an environment or nothing at mine" in line
    assert (folder / "mine" / "bin" / "python3").read_text() == "precious"


def test_the_makefile_asks_for_the_python_of_the_package():
    [needed] = re.findall(r'requires-python = ">=3\.(\d+)', (ROOT / "pyproject.toml").read_text())
    assert set(re.findall(r"\(3, (\d+)\)", (ROOT / "Makefile").read_text())) == {needed}
    assert f"Python 3.{needed} or later" in (ROOT / "Makefile").read_text()


def test_a_newcomer_sees_nothing_of_other_libraries(tmp_path):
    """The first start builds a font cache, and says so where Hydra shows all messages."""
    code = """
from dvae.commands.cli import run
from dvae.commands.options import GradientsConfig
def main(config):
    import logging
    import matplotlib.font_manager
    logging.getLogger("dvae").info("an own message")
run("gradients", GradientsConfig, main)
"""
    new = {"HOME": str(tmp_path / "home"), "MPLCONFIGDIR": str(tmp_path / "fonts")}
    result = subprocess.run(
        [sys.executable, "-c", code, f"hydra.run.dir={tmp_path}"],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, **new},
    )
    assert result.returncode == 0, result.stderr
    assert list((tmp_path / "fonts").iterdir()), "the font cache was not built anew"
    assert not result.stderr
    [line] = result.stdout.splitlines()
    assert line.endswith("an own message")
