"""`compile=true` works, or ends in one line that says what to do."""

import getpass
import os
import shutil
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
import torch._inductor.config
from torch._inductor.exc import CppCompileError, InductorError

from dvae.commands.train import train
from dvae.errors import UserError
from dvae.training import compilation
from dvae.training.compilation import compiler_errors, prepare_compilation

CPU = torch.device("cpu")
SMALL = ["debug=fast", "model.hidden=[8]", "data.eval_batch_size=50", "compile=true"]
CACHE = "TORCHINDUCTOR_CACHE_DIR"


@pytest.fixture(autouse=True)
def unchanged(monkeypatch):
    """Restores what the tests change, and starts without variables of the user."""
    for name in ("CC", "CXX", CACHE):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    with torch._inductor.config.patch({"cpp.cxx": torch._inductor.config.cpp.cxx}):
        yield


def _script(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_a_run_without_a_compiler_ends_in_one_line(make_config, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(UserError) as caught:
        train(make_config(*SMALL))
    assert str(caught.value) == (
        "compile: expected a C++ compiler, found none; install g++ or clang++, or name one in CXX, "
        "or give compile=false"
    )


def test_a_compiler_that_is_named_must_exist(monkeypatch):
    monkeypatch.setenv("CXX", "/nowhere/g++")
    with pytest.raises(UserError, match="found CXX=/nowhere/g\\+\\+, which does not exist"):
        prepare_compilation(CPU)


@pytest.mark.parametrize(
    "complaint", ["fatal error: Python.h: No such file", "error: cannot execute cc1plus"]
)
def test_a_compiler_that_fails_is_quoted(monkeypatch, tmp_path, complaint):
    broken = _script(tmp_path / "g++", f"echo 'In file: ' >&2; echo '{complaint}' >&2; exit 1")
    monkeypatch.setenv("CXX", str(broken))
    with pytest.raises(UserError, match=f"headers of Python, found .*{complaint}.*python3-dev"):
        prepare_compilation(CPU)


def test_another_compiler_than_the_usual_one_is_used(monkeypatch):
    which = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name: which(name) if name == "c++" else None)
    prepare_compilation(CPU)
    assert torch._inductor.config.cpp.cxx == (None, "c++")


def test_a_gpu_needs_triton_and_a_c_compiler(monkeypatch):
    monkeypatch.setattr(compilation.importlib.util, "find_spec", lambda name: None)
    assert compilation.obstacle(True) == "expected Triton, found none; pip install triton"
    monkeypatch.setattr(compilation.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert "expected a C compiler, found none" in compilation.obstacle(True)


def test_a_user_without_a_name_has_a_folder(monkeypatch, tmp_path):
    def nameless():
        raise KeyError("getpwuid(): uid not found: 12345")

    monkeypatch.setattr(getpass, "getuser", nameless)
    monkeypatch.setattr(compilation.tempfile, "gettempdir", lambda: str(tmp_path))
    prepare_compilation(CPU)
    assert os.environ[CACHE] == str(tmp_path / f"torchinductor_uid_{os.getuid()}")


@pytest.mark.parametrize(
    ("fault", "named"),
    [
        ("file in the way", False),
        ("file in the way", True),
        ("noexec", False),
        ("noexec", True),
        ("no folder", False),
    ],
)
def test_an_unusable_temporary_folder_is_replaced(monkeypatch, tmp_path, fault, named):
    temporary = tmp_path / "tmp"
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(compilation.tempfile, "gettempdir", lambda: str(temporary))
    if named:
        # So does torch, as soon as it looks for its folder.
        monkeypatch.setenv(CACHE, str(temporary / "torchinductor_root"))
    if fault == "file in the way":
        temporary.write_text("")
    elif fault == "noexec":

        class Flags:
            def __init__(self, folder):
                self.f_flag = os.ST_NOEXEC if folder.is_relative_to(temporary) else 0

        monkeypatch.setattr(os, "statvfs", Flags)
    else:

        def missing():
            raise FileNotFoundError(2, "No usable temporary directory found")

        monkeypatch.setattr(compilation.tempfile, "gettempdir", missing)
    prepare_compilation(CPU)
    assert Path(os.environ[CACHE]).parent == tmp_path / "home" / ".cache"


def test_a_run_without_any_folder_ends_in_one_line(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(compilation.tempfile, "gettempdir", lambda: str(tmp_path / "file"))
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    with pytest.raises(UserError, match=f"run from, found none; name one in {CACHE}"):
        prepare_compilation(CPU)


def test_what_the_compiler_complains_about_becomes_one_line():
    complaint = "x.h: fatal error: cannot write PCH file: No space left on device"
    output = f"x.h: In function:\n{complaint}\ncompilation terminated."
    with (
        pytest.raises(UserError, match=f"compile: expected the C\\+\\+ .*found: {complaint}; give"),
        compiler_errors(),
    ):
        raise InductorError(CppCompileError(["g++"], output), None)
    with pytest.raises(InductorError), compiler_errors():
        raise InductorError(AssertionError("a fault of torch or ours"), None)


@pytest.mark.parametrize("model", ["mlp", "conv"])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_device_and_network_choose_how_to_compile(make_config, monkeypatch, device, model):
    """Not the devices of the machine: `trainer=cpu` may train beside a GPU."""
    from dvae.tasks import find_task

    config = make_config(f"model={model}")
    task = find_task(config.task)
    module = task.module(config, task.data(config))
    given = []
    monkeypatch.setattr(torch, "compile", lambda function, **options: given.append(options))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: device == "cpu")
    with_backward = Mock()
    monkeypatch.setattr("dvae.training.module._with_backward", with_backward)
    module.compile_training(torch.device(device), backward=True)
    on_gpu = device == "cuda"
    how = {"mode": "reduce-overhead"} if on_gpu else {"options": {"fallback_random": True}}
    assert given == [{"dynamic": False} | how]
    assert with_backward.called == (not on_gpu or model == "mlp")


def test_each_shape_of_a_sweep_is_compiled(make_config, monkeypatch):
    """Torch would compile few of them, and go on without."""
    from dvae.data.loader import Batch
    from dvae.tasks import find_task

    graphs, usual = [], torch.compile

    def count(graph, inputs):
        graphs.append(graph)
        return graph

    monkeypatch.setattr(
        torch, "compile", lambda f, dynamic, **how: usual(f, dynamic=dynamic, backend=count)
    )
    monkeypatch.setattr(torch._dynamo.config, "recompile_limit", 2)
    torch._dynamo.reset()
    for number in range(2, 6):
        config = make_config("model.hidden=[8]", f"model.num_latents={number}")
        task = find_task(config.task)
        module = task.module(config, task.data(config))
        module.compile_training(CPU, backward=True)
        for _ in range(2):
            module.zero_grad()
            loss, _ = module.training_loss(Batch(torch.rand(4, 1, 28, 28), torch.arange(4)))
        assert not loss.requires_grad
        assert len(graphs) == number - 1
