"""Without a terminal, commands print plain lines while they work."""

import io
import os
import re
import subprocess
import sys

import pytest

from dvae.commands.checking import check
from dvae.commands.cli import compose
from dvae.commands.evaluate import evaluate
from dvae.commands.gradients import compare_gradients
from dvae.commands.options import GradientsConfig
from dvae.commands.sample import sample
from dvae.commands.train import train
from dvae.tasks import TASKS, find_task
from dvae.tasks.options import EvaluateConfig, SampleConfig
from dvae.training import progress, terminal
from dvae.training.progress import ProgressBar, ProgressLines
from dvae.training.terminal import has_terminal, status

SMALL = ["debug=fast", "data.eval_batch_size=50", "trainer.progress_bar=true"]
OWN = {
    "policy": ["data.steps_per_epoch=20", "data.exploration=130", "trainer.log_every=5"],
    "vae": ["model.hidden=[8]"],
}
CLOCK = r"\d+:\d\d:\d\d"


def _lines(text, start):
    """The lines of the output that begin so; no line holds codes of a terminal or a bar."""
    assert not re.search(r"\x1b|\r|Epoch|Testing", text)
    return [line for line in text.splitlines() if line.startswith(start)]


# The task prior starts from a checkpoint: see tests/tasks/test_prior.py.
@pytest.mark.parametrize("task", sorted({*TASKS} - {"prior"}))
def test_each_validation_prints_a_line(make_config, capsys, task):
    if task == "policy":
        pytest.importorskip("gymnasium")
        small = ["trainer.progress_bar=true", "data.validation_episodes=2", "test_samples=2"]
    else:
        small = [*SMALL, "trainer.limit_train_batches=3"]
    config = make_config(f"task={task}", *small, *OWN.get(task, []), "trainer.max_epochs=2")
    metrics = train(config)
    first, second = _lines(out := capsys.readouterr().out, "epoch ")
    by = find_task(task).selected_by
    steps = 20 if task == "policy" else 3
    for number, line in enumerate((first, second), 1):
        begin = f"epoch {number}/2  step {number * steps}/{2 * steps}  {by} "
        assert re.match(re.escape(begin) + r"-?[\d.]+", line), line
        assert re.search(rf"  temperature [\d.]+  {CLOCK} elapsed  {CLOCK} left$", line), line
    # No episode of a policy may have ended yet.
    assert task == "policy" or re.search(r"  train/(relaxed_)?elbo -?[\d.]+  ", second), second
    best = max(float(re.search(rf"{by} (\S+)", line)[1]) for line in (first, second))
    assert best == pytest.approx(metrics[by], rel=1e-3)
    # The final test may take longer than all the rest.
    assert len(_lines(out, "test  batch 0/1")) == 1
    assert out.index("epoch 2/2") < out.index("test  batch") < out.index("metric")


def test_long_epochs_and_tests_print_lines_too(
    make_config, tmp_path, data_dir, capsys, monkeypatch
):
    monkeypatch.setattr(progress, "_SILENCE", 0.0)
    options = ["trainer.limit_train_batches=3", "trainer.steps_per_call=1"]
    train(make_config(*SMALL, *OWN["vae"], *options, "trainer.limit_eval_batches=2"))
    out = capsys.readouterr().out
    assert [line.split("  ")[1] for line in _lines(out, "epoch ")] == [
        *(f"step {step}/3" for step in (1, 2, 3)),
        "step 3/3",
    ]
    assert _lines(out, "validation") == [f"validation  batch {n}/2" for n in (1, 2)]
    tested = _lines(out, "test  ")
    assert [line.split("  ")[1] for line in tested] == [f"batch {n}/2" for n in (0, 1, 2)]
    assert tested[-1].endswith("0:00:00 left")
    values = [
        f"checkpoint={tmp_path / 'run' / 'checkpoints' / 'best.ckpt'}",
        *(f"data_dir={data_dir}", "split=val", "data.validation=100", "num_samples=2"),
        *("batch_size=50", "device=cpu"),
    ]
    evaluate(check(EvaluateConfig, compose("evaluate", values)))
    evaluated = _lines(capsys.readouterr().out, "val  ")
    assert [line.split("  ")[1] for line in evaluated] == [f"batch {n}/2" for n in (0, 1, 2)]
    sample(check(SampleConfig, compose("sample", [*values[:2], "device=cpu", "num_images=1"])))
    assert capsys.readouterr().out.startswith("drawing prior from ")


def test_no_progress_is_printed_if_none_is_wanted(make_config, capsys):
    train(make_config(*SMALL, *OWN["vae"], "trainer.progress_bar=false"))
    assert not _lines(out := capsys.readouterr().out, "epoch ")
    assert not _lines(out, "test  ")
    assert "val/elbo" in out


def test_gradients_print_a_line_for_each_measurement(tmp_path, data_dir, capsys):
    options = ["estimators=[rloo,reinmax]", "temperatures=[0.5,1.0]", "num_draws=2", "num_images=1"]
    where = [f"paths.data_dir={data_dir}", f"paths.output_dir={tmp_path}", "device=cpu"]
    compare_gradients(check(GradientsConfig, compose("gradients", [*options, *where])))
    measured = _lines(capsys.readouterr().out, "measured ")
    assert measured == [
        f"measured {name}" for name in ("rloo", "reinmax at τ = 0.5", "reinmax at τ = 1")
    ]


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("output", "variables", "expected"),
    [
        (io.StringIO, {}, False),
        (io.StringIO, {"FORCE_COLOR": "1"}, False),
        (io.StringIO, {"TTY_COMPATIBLE": "1"}, False),
        (Terminal, {}, True),
        (Terminal, {"TERM": "dumb"}, False),
    ],
)
def test_a_bar_needs_a_terminal_that_can_redraw(monkeypatch, output, variables, expected):
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ({"TERM": "xterm"} | variables).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stdout", stream := output())
    assert has_terminal() is expected
    assert type(progress.progress()) is (ProgressBar if expected else ProgressLines)
    with status() as show:
        show("working on [1]")
    assert (stream.getvalue() == "working on [1]\n") is not expected


def test_lines_of_parallel_jobs_begin_with_their_names(monkeypatch, capsys):
    monkeypatch.setattr(progress, "runs_in_parallel", lambda: True)
    monkeypatch.setattr(terminal, "has_terminal", lambda: True)
    lines = progress.progress("val/elbo", "seed=1")
    assert isinstance(lines, ProgressLines)

    class Trainer:
        is_global_zero = True
        num_test_batches = (4,)

    lines.on_test_start(Trainer(), None)
    assert capsys.readouterr().out == "seed=1: test  batch 0/4\n"


def test_a_reader_that_leaves_ends_no_run():
    """As with `| head -1`: the pipe is closed while the run goes on."""
    code = """
import sys
from dvae.training.terminal import say
sys.stdin.readline()
for number in range(3):
    say(str(number))
print("the table")
print("trained", file=sys.stderr)
"""
    reader, writer = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        os.close(writer)
        os.close(reader)
        _, errors = process.communicate("go\n", timeout=60)
    assert process.returncode == 0
    assert errors == "trained\n"
