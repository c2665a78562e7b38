import subprocess
import sys

import pytest


def _loaded(module):
    code = f"import sys, {module}; print(*(name for name in sys.modules if '.' not in name))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return set(result.stdout.split())


@pytest.mark.parametrize(
    "module",
    [
        "dvae",
        "dvae.commands.config",
        "dvae.commands.schemas",
        "dvae.commands.cli",
        "dvae.schedules",
    ],
)
def test_configurations_do_not_wait_for_torch(module):
    assert not _loaded(module) & {"torch", "pytorch_lightning", "torchvision", "matplotlib"}


@pytest.mark.parametrize(
    "module", ["dvae.models", "dvae.models.bounds", "dvae.networks.mlp", "dvae.layers"]
)
def test_models_know_neither_lightning_nor_hydra(module):
    assert not _loaded(module) & {"pytorch_lightning", "lightning_fabric", "hydra", "omegaconf"}


def test_the_layer_is_exported():
    import dvae
    from dvae.layers import GumbelSoftmax

    assert dvae.GumbelSoftmax is GumbelSoftmax
    with pytest.raises(AttributeError, match="nothing"):
        _ = dvae.nothing
