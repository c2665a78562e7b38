"""Broken or hostile input is refused in one line; no code in it runs, and no file is changed."""

import os
import pickle
import random
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from dvae.commands.checking import check
from dvae.commands.cli import _USER_ERRORS, ROOT, compose
from dvae.commands.train import train
from dvae.data.sources import SOURCES
from dvae.errors import UserError
from dvae.runs.folder import run_in_folder
from dvae.runs.resume import resumed
from dvae.tasks import find_task
from dvae.tasks.loading import load_module
from dvae.training.config import RunConfig

FLIPS, CUTS = 90, 25


@pytest.fixture(scope="module")
def run(tmp_path_factory, data_dir):
    """The folder of a small finished run."""
    folder = tmp_path_factory.mktemp("run")
    overrides = ["debug=fast", "model.hidden=[4]", "model.num_latents=2", "trainer.accelerator=cpu"]
    own = [f"paths.data_dir={data_dir}", f"paths.output_dir={folder}"]
    train(check(RunConfig, compose("train", [*overrides, *own, "trainer.progress_bar=false"])))
    return folder


@pytest.fixture
def checkpoint(run, tmp_path):
    return Path(shutil.copy(run / "checkpoints" / "best.ckpt", tmp_path / "broken.ckpt"))


def _refused(path, marker):
    """Checks that a checkpoint is refused in one line, runs no code and is not changed."""
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(UserError) as caught:
        load_module(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not marker.exists()
    assert before is None or path.read_bytes() == before


def test_no_flipped_bit_changes_the_weights(checkpoint, tmp_path):
    """A flipped bit is refused, unless it lies in a part of the archive without effect."""
    whole = checkpoint.read_bytes()
    expected = load_module(checkpoint)[0].state_dict()
    generator, refused = random.Random(0), 0
    for _ in range(FLIPS):
        place = generator.randrange(len(whole))
        bit = 1 << generator.randrange(8)
        checkpoint.write_bytes(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])
        try:
            found = load_module(checkpoint)[0].state_dict()
        except UserError:
            refused += 1
        else:
            assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert refused > 0.8 * FLIPS


@pytest.mark.parametrize("share", [number / CUTS for number in range(CUTS)])
def test_truncated_checkpoints_are_refused(checkpoint, tmp_path, share):
    whole = checkpoint.read_bytes()
    checkpoint.write_bytes(whole[: int(share * len(whole))])
    _refused(checkpoint, tmp_path / "executed")


FOREIGN = {
    "text": b"weights: 1\n",
    "html": b"<!DOCTYPE html><html></html>",
    "png": b"\x89PNG\r\n\x1a\n" + bytes(64),
    "gzip": b"\x1f\x8b\x08\x00" + bytes(64),
    "zip": b"PK\x03\x04" + bytes(64),
    "zeros": bytes(4096),
    "pickle": pickle.dumps({"state_dict": {}, "config": {}}),
    "python": b"import os\n",
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_other_files_are_refused(tmp_path, kind):
    (tmp_path / "a.ckpt").write_bytes(FOREIGN[kind])
    _refused(tmp_path / "a.ckpt", tmp_path / "executed")


class _Call:
    """An object whose unpickling calls a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def _payloads(marker):
    code = f"open({str(marker)!r}, 'w')"
    return {
        "open": _Call(open, str(marker), "w"),
        "os.system": _Call(os.system, f"touch {marker}"),
        "eval": _Call(eval, code),
        "exec": _Call(exec, code),
        "subprocess": _Call(subprocess.call, ["touch", str(marker)]),
        "alias": _Call(shutil.os.system, f"touch {marker}"),
        "torch.load": _Call(torch.load, str(marker)),
        "getattr": _Call(getattr, "os", "upper"),
        "import": _Call(__import__, "antigravity"),
        "path": _Call(Path.touch, marker),
    }


@pytest.mark.parametrize("where", ["config", "state_dict", "callbacks", "itself"])
@pytest.mark.parametrize("kind", _payloads(Path()))
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_pickles_run_nothing(checkpoint, tmp_path, kind, where, legacy):
    marker = tmp_path / "executed"
    payload = _payloads(marker)[kind]
    content = torch.load(checkpoint, weights_only=True)
    content = payload if where == "itself" else {**content, where: payload}
    torch.save(content, checkpoint, _use_new_zipfile_serialization=not legacy)
    _refused(checkpoint, marker)


def _set(content, path, value):
    *parents, last = path.split("/")
    for key in parents:
        content = content[key]
    content[last] = value


CONTENTS = {
    "target": ("config/model/_target_", "os.system"),
    "target eval": ("config/model/_target_", "builtins.eval"),
    "target alias": ("config/prior/_target_", "dvae.files.os.system"),
    "target as name": ("config/model/name", "os.system"),
    "name of a module": ("config/estimator/name", "dvae.estimators.Exact"),
    "traversal in a task": ("config/task", "../../scripts/train"),
    "dots in a task": ("config/task", "base"),
    "module as task": ("config/task", "os"),
    "traversal in a data set": ("config/data/name", "../../../etc/passwd"),
    "task that is a list": ("config/task", ["vae"]),
    "no task": ("config/task", None),
    "another task": ("config/task", "structured_prediction"),
    "unknown key": ("config/model/depth", 3),
    "huge size": ("config/model/num_latents", 10**12),
    "overflowing size": ("config/model/num_latents", 2**70),
    "huge layer": ("config/model/hidden", [10**15]),
    "negative size": ("config/model/num_latents", -1),
    "no size": ("config/model/num_latents", None),
    "text as size": ("config/model/num_latents", "2"),
    "float as size": ("config/model/num_latents", 2.0),
    "true as size": ("config/model/num_latents", True),
    "other size": ("config/model/num_categories", 7),
    "one category": ("config/model/num_categories", 1),
    "nan temperature": ("config/temperature/initial", float("nan")),
    "zero temperature": ("config/temperature/initial", 0.0),
    "negative seed": ("config/seed", -1),
    "no model": ("config/model", None),
    "no config": ("config", None),
    "config as text": ("config", "model: mlp"),
    "newer version": ("format", 10**6),
    "version as text": ("format", "1"),
    "no weights": ("state_dict", {}),
    "trained weights as list": ("trained_weights", []),
    "trained weight that is text": ("trained_weights", {"vae.output_bias": "0"}),
    "nan trained weight": ("trained_weights", {"vae.output_bias": torch.full((1,), torch.nan)}),
    "weights as list": ("state_dict", []),
    "text as weight": ("state_dict/vae.output_bias", "0"),
    "number as weight": ("state_dict/vae.output_bias", 0.0),
    "wrong shape": ("state_dict/vae.output_bias", torch.zeros(3)),
    "integers as weight": ("state_dict/vae.output_bias", torch.zeros(1, 28, 28, dtype=torch.long)),
    "nan weight": ("state_dict/vae.output_bias", torch.full((1, 28, 28), torch.nan)),
    "infinite weight": ("state_dict/vae.output_bias", torch.full((1, 28, 28), torch.inf)),
    "sparse weight": ("state_dict/vae.output_bias", torch.zeros(1, 28, 28).to_sparse()),
    "weight of no memory": ("state_dict/vae.output_bias", torch.zeros(1).expand(1, 28, 28)),
    "further weight": ("state_dict/vae.extra", torch.zeros(1)),
    "further weight with a path": ("state_dict/../../x", torch.zeros(1)),
}


@pytest.mark.parametrize("kind", CONTENTS)
def test_contents_that_do_not_fit_are_refused(checkpoint, tmp_path, kind):
    content = torch.load(checkpoint, weights_only=True)
    path, value = CONTENTS[kind]
    if path == "state_dict/../../x":
        content["state_dict"]["../../x"] = value
    else:
        _set(content, path, value)
    torch.save(content, checkpoint)
    _refused(checkpoint, tmp_path / "executed")


def test_archives_with_paths_write_nothing(checkpoint, tmp_path):
    outside = tmp_path.parent / "outside"
    with zipfile.ZipFile(checkpoint, "a") as archive:
        archive.writestr("../outside", "x")
    _refused(checkpoint, outside)


RESUMED = {
    "steps as text": ("global_step", "3"),
    "no loops": ("loops", {}),
    "other loops": ("loops/fit_loop", {"a": 1}),
    "epoch as text": ("loops/fit_loop/epoch_progress", "3"),
    "no optimizer": ("optimizer_states", []),
    "optimizer as text": ("optimizer_states", "adam"),
    "schedulers": ("lr_schedulers", [{"_target_": "os.system"}]),
    "callbacks as list": ("callbacks", []),
    "trained weight of another shape": ("trained_weights", {"vae.output_bias": torch.zeros(3)}),
    "trained weight of another name": ("trained_weights", {"vae.extra": torch.zeros(3)}),
}


@pytest.mark.parametrize("kind", RESUMED)
def test_broken_training_states_are_refused(run, tmp_path, data_dir, kind):
    content = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    _set(content, *RESUMED[kind])
    path = tmp_path / "broken.ckpt"
    torch.save(content, path)
    overrides = ["debug=fast", "model.hidden=[4]", "model.num_latents=2", "trainer.accelerator=cpu"]
    own = [f"paths.data_dir={data_dir}", f"paths.output_dir={tmp_path / 'new'}", f"resume={path}"]
    config = check(RunConfig, compose("train", [*overrides, *own, "trainer.progress_bar=false"]))
    with pytest.raises(UserError, match="resume|optimizer") as caught:
        train(config)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "new" / "checkpoints").exists()


BROKEN = [b"", b"{", b"a: [", b"\xff\xfe\x00", b"- 1\n- 2", b"a: b: c", b"\x00" * 100]


@pytest.mark.parametrize("name", ["config.yaml", "status.json", "environment.json"])
@pytest.mark.parametrize("content", BROKEN)
def test_broken_files_of_a_run_are_refused(run, tmp_path, name, content, data_dir):
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    (folder / "status.json").write_text('{"state": "interrupted", "seconds": 1.0}')
    (folder / name).write_bytes(content)
    script = ["resume=last", f"hydra.run.dir={folder}"]
    before = (folder / "checkpoints" / "last.ckpt").read_bytes()

    def never(config):
        raise AssertionError("the run was not refused")

    def resume():
        arguments = resumed(script, folder.parent)
        task = [item for item in arguments if not item.startswith("hydra.")]
        values = compose("train", [*task, f"paths.output_dir={folder}"])
        run_in_folder(check(RunConfig, values), never)

    with pytest.raises(UserError) as caught:
        resume()
    assert "\n" not in str(caught.value)
    assert (folder / "checkpoints" / "last.ckpt").read_bytes() == before


def test_a_broken_configuration_is_refused(tmp_path):
    for number, content in enumerate(BROKEN[1:4]):
        (tmp_path / "experiment").mkdir(exist_ok=True)
        (tmp_path / "experiment" / f"broken{number}.yaml").write_bytes(content)
        command = [sys.executable, str(ROOT / "scripts" / "train.py"), "--config-dir", tmp_path]
        result = subprocess.run(
            [*command, f"experiment=broken{number}"], capture_output=True, text=True, cwd=tmp_path
        )
        assert result.returncode == 2, result.stderr
        assert len(result.stderr.strip().splitlines()) == 1, result.stderr
        assert result.stderr.startswith("error: ")


IDX = ["train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte"]
DAMAGES = {
    "empty": lambda content: b"",
    "truncated": lambda content: content[:-1000],
    "flipped": lambda content: content[:500] + bytes([content[500] ^ 1]) + content[501:],
    "foreign": lambda content: b"not an IDX file",
    "longer": lambda content: content + b"\0",
    "header": lambda content: b"\x00\x00\x0d\x03" + content[4:],
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", IDX)
def test_broken_idx_files_are_refused(data_dir, mnist, tmp_path, name, damage):
    mnist().prepare_data()
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for file in (data_dir / "MNIST" / "raw").iterdir():
        (folder / file.name).symlink_to(file)
    broken = folder / name
    content = DAMAGES[damage](broken.read_bytes())
    broken.unlink()
    broken.write_bytes(content)
    with pytest.raises(UserError, match=name):
        mnist(root=tmp_path).setup()
    assert broken.read_bytes() == content


def test_broken_files_without_a_checksum_are_refused(tmp_path):
    """torchvision raises various errors for broken files; all become a `UserError`."""
    folder = tmp_path / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    for name in (*IDX, "t10k-labels-idx1-ubyte"):
        (folder / name).write_bytes(b"\x00\x00\x08\x03" + bytes(10))
    with pytest.raises(UserError, match="data=fashion_mnist"):
        SOURCES["fashion_mnist"]().build(tmp_path, 0).setup()


OVERRIDES = """
seed=-1
seed=1.5
seed=abc
seed=[1]
seed=5000000000
model=mpl
model=../../etc/passwd
model.hidden=[]x
model.hidden=5
model.hidden=[0]
model.hidden=[-3]
model.hidden=[a]
model.num_latents=0
model.num_latents=-2
model.num_latents=1e3
model.num_latents=null
model.num_categories=1
model.num_categories=two
model.activation=os.system
model.normalization=yes
model._target_=os.system
+model._target_=builtins.eval
+prior._target_=dvae.files.os.system
+_target_=os.system
modle.hidden=[3]
train.lrr=1
temperature.minimum=abc
temperature.minimum=-0.1
temperature.minimum=0
temperature.minimum=nan
temperature.minimum=2
temperature.initial=inf
temperature.steps=1.5
temperature.steps=-1
temperature=hot
temperature=none
estimator=gumbel
estimator=reinmax,zgr
estimator=exact
estimator=zgr temperature=cosine
estimator.gap=1
estimator=rloo estimator.num_samples=1
optimizer.lr=0
optimizer.lr=-1
optimizer.lr=nan
optimizer.lr=fast
optimizer.momentum=0.9
optimizer=lbfgs
optimizer.beta1=1
objective=iwae objective.num_samples=1
objective=iwae estimator=reinforce
objective=vimco estimator=gumbel_softmax
objective.kl=relaxed
objective.prior_temperature=1
objective.beta=-1
data.name=cifar
data.name=../mnist
data.batch_size=0
data.batch_size=1
data.validation=-5
data.binarization=maybe
data=imagenet
trainer.max_epochs=0
trainer.max_epochs=many
trainer.validate_every=1000
trainer.limit_train_batches=0
trainer.limit_train_batches=1.5
trainer.accelerator=tpu
trainer.devices=0
trainer.devices=-1
callbacks.early_stopping=0
callbacks.early_stopping=1 data.validation=0
callbacks.gradient_snr=-1
precision=8
precision=float
compile=maybe
on_nonfinite=ignore
resume=/nowhere/last.ckpt
resume=.
test_samples=-1
task=vea
task=../vae
task=base
task=structured_prediction prior=uniform
experiment=nature2030
experiment=grey model.num_latents=3
${oc.env:HOME}
x=y
"""


@pytest.mark.parametrize("line", OVERRIDES.strip().splitlines())
def test_wrong_overrides_are_refused(line):
    with pytest.raises(_USER_ERRORS) as caught:
        check(RunConfig, compose("train", line.split()))
    assert str(caught.value)


SCRIPTS = [
    (["train.py", "model.num_latents=0"], "model.num_latents"),
    (["train.py", "+model._target_=os.system"], "model._target_"),
    (["train.py", "train.lrr=1"], "train.lrr"),
    (["train.py", "paths.data_dir=/proc/none"], "/proc/none"),
    (["train.py", "hydra.run.dir=/proc/none"], "/proc/none"),
    (["train.py", "resume={broken}"], "resume"),
    (["evaluate.py", "checkpoint={broken}"], "checkpoint"),
    (["evaluate.py", "checkpoint=/nowhere"], "checkpoint"),
    (["evaluate.py"], "checkpoint"),
    (["sample.py", "checkpoint={good}", "num_images=100000", "what=traversal"], "num_images"),
    (["train.py", "=3"], "Config group override"),
    (["gradients.py", "temperatures=[0]"], "temperatures"),
]


@pytest.fixture(scope="module")
def answers(run, run_scripts, tmp_path_factory):
    """What the scripts answer, and a file that must not be created."""
    folder = tmp_path_factory.mktemp("answers")
    broken, marker = folder / "broken.ckpt", folder / "executed"
    torch.save({"config": _Call(os.system, f"touch {marker}")}, broken)
    good = run / "checkpoints" / "last.ckpt"
    commands = []
    for arguments, _ in SCRIPTS:
        command = [item.format(broken=broken, good=good) for item in arguments]
        if command[0] == "train.py" and "hydra.run.dir" not in "".join(command):
            command.append(f"hydra.run.dir={folder / 'run'}")
        commands.append(command)
    return run_scripts(commands, folder), marker


@pytest.mark.parametrize("number", range(len(SCRIPTS)), ids=[" ".join(a) for a, _ in SCRIPTS])
def test_scripts_report_mistakes_in_one_line(answers, number):
    results, marker = answers
    code, _, line = results[number]
    assert code == 2, line
    assert len(line.strip().splitlines()) == 1, line
    assert line.startswith("error: ")
    assert SCRIPTS[number][1] in line
    assert not marker.exists()


def test_there_are_more_than_300_cases():
    payloads = 2 * 4 * len(_payloads(Path()))
    damaged = len(IDX) * len(DAMAGES)
    generated = FLIPS + CUTS + payloads + damaged + len(FOREIGN)
    assert generated + len(CONTENTS) + len(RESUMED) + len(OVERRIDES.split("\n")) > 300


def test_only_tasks_of_the_package_are_found():
    for name in ("os", "base", "vae.VAETask", "../vae", "", None, ["vae"], "__init__"):
        with pytest.raises(UserError, match="task: expected one of"):
            find_task(name)
