import copy
import functools
import importlib.util
import os
from pathlib import Path

import pytest
import torch

from dvae.commands.checking import check
from dvae.commands.cli import compose
from dvae.data.sources import SOURCES
from dvae.models.vae import VAE
from dvae.training.config import RunConfig
from tests.programs import Program

# Tests run in parallel, one process for each core, so one thread is enough for each process.
os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(1)


# The files that take longest come first, so that all processes end at about the same time.
LONGEST = [
    "test_resilience.py",
    "test_train.py",
    "test_resume.py",
    "test_quality.py",
    "test_hostile.py",
    "test_benchmark.py",
    "test_disk.py",
    "test_installed.py",
    "test_processes.py",
    "test_extending.py",
    "test_structured_prediction.py",
    "test_cli.py",
    "test_file_systems.py",
    "test_paths.py",
]


def pytest_collection_modifyitems(items):
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("cuda"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
    if importlib.util.find_spec("ray") is None:
        for item in items:
            if item.get_closest_marker("ray"):
                item.add_marker(pytest.mark.skip(reason="needs the extra ray"))


@pytest.fixture(scope="session")
def run_scripts():
    """Runs scripts, one after another: exit code, stdout and stderr of each."""

    def run(commands: list[list[str]], folder: Path) -> list[tuple[int, str, str]]:
        return [Program(*command, folder=folder).finish() for command in commands]

    return run


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """A data folder for the whole session; MNIST is unpacked into it on first use."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def make_config(tmp_path, data_dir):
    """Composes and checks a training configuration that writes into a temporary folder."""

    def make(*overrides: str, output: Path | None = None) -> RunConfig:
        quick = ["trainer.progress_bar=false", "trainer.accelerator=cpu"]
        values = copy.deepcopy(_composed(*quick, *overrides))
        values["paths"] = {"data_dir": str(data_dir), "output_dir": str(output or tmp_path / "run")}
        return check(RunConfig, values)

    return make


@functools.cache
def _composed(*overrides: str) -> dict:
    """Composes once for all tests with these overrides: it takes longer than many a test."""
    return compose("train", ["paths.data_dir=data", "paths.output_dir=run", *overrides])


@pytest.fixture
def small_vae(make_config) -> VAE:
    """An untrained float64 model with 3 × 4 latents, far from uniform posteriors."""
    config = make_config(
        "model.num_latents=3",
        "model.num_categories=4",
        "model.hidden=[16]",
        "model.normalization=none",
        "prior=learned",
        "logits=softmax",
    )
    torch.manual_seed(0)
    vae = config.build_model().double().eval()
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return vae


@pytest.fixture(scope="session")
def mnist(data_dir):
    """Builds MNIST images from data options."""

    def make(*, root=None, seed=0, **options):
        return SOURCES["mnist"](**options).build(root or data_dir, seed)

    return make
