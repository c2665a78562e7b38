"""Where a run computes: on a GPU with CUDA or on the CPU, and the first line says which and why."""

import os
import warnings

import pytest
import torch
from pytorch_lightning.accelerators import MPSAccelerator

from dvae.commands.train import train
from dvae.errors import UserError
from dvae.training import devices
from dvae.training.devices import describe_device, has_gpu, resolve_device, tune_torch

OLD_DRIVER = (
    "CUDA initialization: The NVIDIA driver on your system is too old (found version 11040). "
    "Please update your GPU driver by downloading and installing a new version from the URL: …"
)
NVML = "PYTORCH_NVML_BASED_CUDA_CHECK"


@pytest.fixture
def machine(monkeypatch):
    """Simulates a machine without a GPU that torch can use."""

    def simulate(*, driver=False, built=True, mps=False, visible=None, complaint=None):
        def count():
            if complaint is not None and not said:
                said.append(warnings.warn(complaint, stacklevel=1))
            return 0

        said = []
        monkeypatch.setattr(torch.cuda, "_is_compiled", lambda: built)
        monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: built)
        monkeypatch.setattr(torch._C, "_cuda_getDeviceCount", count, raising=False)
        # NVML counts the GPU all the same, and Lightning makes torch ask it.
        monkeypatch.setattr(torch.cuda, "device_count", lambda: int(driver))
        monkeypatch.setenv(NVML, "1")
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
        monkeypatch.setattr(MPSAccelerator, "is_available", staticmethod(lambda: mps))
        monkeypatch.setattr(devices, "_has_driver", lambda: driver)
        monkeypatch.setattr(devices, "_complaints", [])
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

    return simulate


@pytest.mark.parametrize(
    ("simulated", "reason"),
    [
        ({}, "no GPU found"),
        ({"built": False}, "no GPU found"),
        ({"visible": ""}, "no GPU found"),
        ({"driver": True, "complaint": OLD_DRIVER}, "too old (found version 11040), says torch"),
        ({"driver": True, "built": False}, "is built without CUDA, for which there is a driver"),
        ({"driver": True, "visible": ""}, "CUDA_VISIBLE_DEVICES='' hides the GPUs"),
        ({"driver": True}, "there is a driver of NVIDIA, but torch finds no GPU"),
        ({"mps": True}, "of the GPUs, dvae uses those with CUDA only"),
    ],
)
def test_a_run_on_the_cpu_says_why(machine, simulated, reason):
    machine(**simulated)
    # Torch complains once; the reason must not get lost.
    for _ in range(2):
        assert resolve_device("auto").type == "cpu"
        line = describe_device("auto")
        assert line.startswith(f"device: cpu ({torch.get_num_threads()} thread")
        assert reason in line
        assert "update" not in line
        with pytest.raises(
            UserError, match="trainer.accelerator: expected cpu or auto .* gpu"
        ) as e:
            resolve_device("gpu", "trainer.accelerator")
        assert reason in str(e.value)
    assert os.environ[NVML] == "1"
    assert describe_device("cpu").endswith("as asked")


def test_a_gpu_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H100")
    assert has_gpu()
    assert resolve_device("auto") == resolve_device("gpu") == torch.device("cuda")
    assert describe_device("auto") == "device: NVIDIA H100"
    assert describe_device("gpu", 2) == "device: 2 × NVIDIA H100"
    assert describe_device("auto", "auto") == "device: 4 × NVIDIA H100"
    assert describe_device("cpu", 2).startswith("device: 2 × cpu (")


@pytest.mark.parametrize("simulated", [{"mps": True}, {"driver": True, "complaint": OLD_DRIVER}])
def test_training_chooses_the_cpu_unless_there_is_cuda(make_config, machine, simulated, capsys):
    """Lightning would choose the GPU of Apple silicon, or one whose driver torch cannot use."""
    machine(**simulated)
    tune_torch()
    small = ["debug=fast", "model.hidden=[8]", "model.num_latents=2", "data.eval_batch_size=50"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*many workers|.*LeafSpec|.*deprecated")
        metrics = train(make_config(*small, "trainer.accelerator=auto", "callbacks=none"))
    assert metrics["val/elbo"] < 0
    assert capsys.readouterr().out.startswith("device: cpu (")


@pytest.mark.parametrize("key", ["trainer.accelerator=mps", "trainer.accelerator=gpu"])
def test_other_devices_are_refused_in_one_line(make_config, machine, key):
    machine(mps=True)
    with pytest.raises(UserError, match="trainer.accelerator: expected") as error:
        train(make_config("debug=fast", key))
    assert "\n" not in str(error.value)
