"""The package without its clone: a wheel in an environment of its own, and the notebook there."""

import json
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
import zipfile
from pathlib import Path

import pytest

from dvae import __version__
from dvae.commands.cli import ROOT

SMALL = ["debug=fast", "model.hidden=[8]", "model.num_latents=2", "trainer.accelerator=cpu"]
NOTEBOOK = ROOT / "docs" / "notebook.ipynb"


def _run(*command, folder, **variables):
    environment = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    result = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env={**environment, "OMP_NUM_THREADS": "1", **variables},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel, built from a source distribution, built from a copy of the clone."""
    folder = tmp_path_factory.mktemp("build")
    source = folder / "clone"
    for name in ("src", "configs"):
        shutil.copytree(
            ROOT / name,
            source / name,
            ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"),
        )
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = "from setuptools import build_meta; build_meta.build_sdist('..')"
    _run(sys.executable, "-c", build, folder=source)
    [archive] = folder.glob("dvae-*.tar.gz")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet"]
    _run(sys.executable, "-m", "pip", "wheel", *options, archive, folder=folder)
    [path] = folder.glob("dvae-*.whl")
    return path


@pytest.fixture(scope="module")
def programs(wheel, tmp_path_factory):
    """The programs of an environment with the wheel, which shares the dependencies of this one."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    options = ["--no-deps", "--no-index", "--quiet", "--no-warn-script-location"]
    pip = [sys.executable, "-m", "pip", "--python", python]
    _run(*pip, "install", *options, wheel, folder=folder)
    # Python does not read the .pth files of the folders named in one: editable installs stay out.
    [packages] = folder.glob("lib/*/site-packages")
    shared = {sysconfig.get_path(name) for name in ("purelib", "platlib")}
    (packages / "shared.pth").write_text("\n".join(shared))
    return python.parent


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """A folder that has nothing to do with the clone."""
    return tmp_path_factory.mktemp("elsewhere")


def test_the_wheel_holds_all_that_a_run_needs(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    configs = {f"dvae/{path.relative_to(ROOT)}" for path in (ROOT / "configs").rglob("*.yaml")}
    assert {name for name in names if name.endswith(".yaml")} == configs
    source = ROOT / "src"
    assert {name for name in names if name.endswith(".py")} == {
        str(path.relative_to(source)) for path in source.rglob("*.py")
    }
    assert {"dvae/py.typed", "dvae/data/mnist/train-images-idx3-ubyte.gz"} <= names


# Commands one after another in one process, to import once.
COMMANDS = """
import json, sys
from dvae.console import main
for sys.argv in json.loads(sys.argv[1]):
    main()
"""


def test_a_run_from_another_folder(programs, elsewhere):
    """Trains two steps, evaluates and samples; all that is written is in this folder."""
    dvae = programs / "dvae"
    text = _run(dvae, "train", *SMALL, folder=elsewhere)
    [run] = (elsewhere / "outputs" / "runs").iterdir()
    assert f"run  {run}" in text
    assert (elsewhere / "outputs" / "data" / "MNIST" / "raw").is_dir()
    environment = json.loads((run / "environment.json").read_text())
    assert environment["command"] == shlex.join(["dvae", "train", *SMALL])
    assert environment["packages"]["dvae"] == __version__
    checkpoint = f"checkpoint={run / 'checkpoints' / 'best.ckpt'}"
    commands = [
        ["dvae", "evaluate", checkpoint, "split=val", "num_samples=0", "device=cpu"],
        ["dvae", "sample", checkpoint, "num_images=4", "device=cpu"],
    ]
    _run(programs / "python", "-c", COMMANDS, json.dumps(commands), folder=elsewhere)
    assert json.loads((run / "checkpoints" / "best.val.json").read_text())["metrics"]["val/elbo"]
    assert (run / "samples" / "prior.png").stat().st_size > 0
    assert {path.name for path in elsewhere.iterdir()} == {"outputs"}


def test_configurations_of_the_current_folder(programs, tmp_path):
    own = tmp_path / "mine" / "experiment" / "tiny.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("# @package _global_\nmodel:\n  num_latents: 7\n")
    for where in (["--config-dir", "mine"], ["hydra.searchpath=[file://mine]"]):
        command = [*where, "experiment=tiny", "--cfg", "job", "-p", "model"]
        assert "num_latents: 7" in _run(programs / "dvae", "train", *command, folder=tmp_path)


def test_extras_are_found_and_named(programs, tmp_path):
    """The sweeper is in the wheel, and the packages of an extra are known without the clone."""
    arguments = ["+sweep=optuna", "--cfg", "hydra", "-p", "hydra.sweeper"]
    text = _run(programs / "dvae", "train", *arguments, folder=tmp_path)
    assert "hydra_plugins.dvae_optuna.OptunaSweeper" in text
    code = "from dvae.errors import install_command; print(install_command('policy'))"
    text = _run(programs / "python", "-c", code, folder=tmp_path)
    assert text.startswith("pip install 'gymnasium[classic-control]>=")


EXECUTE = """
import sys, nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], as_version=4)
NotebookClient(notebook, timeout=200, kernel_name="python3").execute()
print(nbformat.writes(notebook))
"""


def test_the_notebook_runs(programs, tmp_path):
    text = _run(programs / "python", "-c", EXECUTE, NOTEBOOK, folder=tmp_path)
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    outputs = [output for cell in cells for output in cell["outputs"]]
    kinds = [kind for output in outputs for kind in output.get("data", {})]
    assert kinds.count("image/png") == 3
    assert "Warning" not in text
    [run] = (tmp_path / "outputs" / "runs").iterdir()
    assert json.loads((run / "status.json").read_text())["state"] == "finished"


def test_the_notebook_is_kept_with_its_pictures_and_no_paths():
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert text.count('"image/png"') == 3
    assert len(text) < 200_000
    assert str(Path.home()) not in text
    assert tempfile.gettempdir() not in text
