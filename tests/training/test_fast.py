"""`fast=true` chooses compilation and precision by the machine and the length of the run."""

import json

import pytest
import torch

from dvae.commands.train import train
from dvae.training import fast
from dvae.training.fast import choose_speed

NO_COMPILER = "expected a C++ compiler, found none"


@pytest.fixture
def machine(monkeypatch):
    """Simulates a CPU with or without bf16, and with or without a compiler."""

    def simulate(*, bf16: bool = True, compiler: bool = True) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        names = {"avx512_bf16": bf16, "amx_bf16": False}
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: names, raising=False)
        monkeypatch.setattr(fast, "obstacle", lambda on_gpu: "" if compiler else NO_COMPILER)

    return simulate


@pytest.mark.parametrize(
    ("options", "simulated", "steps", "compiles", "precision", "reason"),
    [
        (["fast=true"], {}, 10_000, True, "bf16", "compiled, as 10,000 steps"),
        (["fast=true"], {}, 9999, False, "bf16", "9,999 steps are too few"),
        (["fast=true"], {"compiler": False}, 20_000, False, "bf16", "a C++ compiler, found none"),
        (["fast=true"], {"bf16": False}, 20_000, True, 32, "this CPU does not compute in bf16"),
        (["fast=true", "compile=true"], {}, 10, True, "bf16", "as compile=true asks"),
        (["fast=true", "precision=64"], {}, 20_000, True, 64, "precision=64, as given"),
        ([], {}, 9000, False, 32, ""),
        (["compile=true", "precision=bf16"], {"bf16": False}, 10, True, "bf16", ""),
    ],
)
def test_settings_fit_the_machine(
    make_config, machine, options, simulated, steps, compiles, precision, reason
):
    machine(**simulated)
    speed = choose_speed(make_config(*options), steps)
    assert (speed.compile, speed.precision) == (compiles, precision)
    assert reason in speed.reason
    assert bool(speed.reason) == ("fast=true" in options)


def test_a_gpu_computes_in_bf16_if_it_can(make_config, machine, monkeypatch):
    machine(bf16=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    supported = {"answer": True}
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation: supported["answer"]
    )
    config = make_config("fast=true", "trainer.accelerator=auto")
    assert choose_speed(config, 9000).precision == "bf16"
    supported["answer"] = False
    assert choose_speed(config, 9000).precision == 32
    # On the CPU of a machine with a GPU, the CPU counts.
    supported["answer"] = True
    assert choose_speed(make_config("fast=true"), 9000).precision == 32


def test_a_fast_run_says_what_it_chose_and_keeps_its_configuration(
    make_config, machine, tmp_path, capsys
):
    machine()
    metrics = []
    small = ["debug=fast", "model.hidden=[16]", "data.eval_batch_size=50"]
    for name, option in (("fast", "fast=true"), ("bf16", "precision=bf16")):
        metrics.append(train(make_config(*small, option, output=tmp_path / name)))
    shown = capsys.readouterr().out
    assert "fast: not compiled, as 2 steps are too few" in shown
    assert shown.count("fast:") == 1
    # The configuration is the requested one, so that another machine chooses anew.
    written = (tmp_path / "fast" / "config.yaml").read_text()
    assert "fast: true" in written
    assert "precision: 32" in written
    environment = json.loads((tmp_path / "fast" / "environment.json").read_text())
    assert (environment["compile"], environment["precision"]) == (False, "bf16")
    assert metrics[0] == metrics[1]
