"""Complete but small runs of training, evaluation and sampling."""

import json
import math
import shutil

import pytest
import torch

from dvae.commands.checking import check
from dvae.commands.cli import CONFIGS, compose
from dvae.commands.evaluate import evaluate
from dvae.commands.sample import sample
from dvae.commands.train import train
from dvae.errors import UserError
from dvae.tasks.loading import load_module
from dvae.tasks.options import EvaluateConfig, SampleConfig
from dvae.training.checkpoints import load_checkpoint
from dvae.training.config import RunConfig

SMALL = ["debug=fast", "model.hidden=[16]", "data.eval_batch_size=50"]


@pytest.fixture(scope="module")
def run(tmp_path_factory, data_dir):
    """The folder and the metrics of a short run, with 4 latents of 8 categories."""
    folder = tmp_path_factory.mktemp("run")
    overrides = [
        *SMALL,
        "model.num_latents=4",
        "model.num_categories=8",
        "data.validation=50",
        "trainer.limit_train_batches=20",
        "trainer.max_epochs=2",
        "trainer.progress_bar=false",
        f"paths.data_dir={data_dir}",
        f"paths.output_dir={folder}",
        "trainer.accelerator=cpu",
    ]
    return folder, train(check(RunConfig, compose("train", overrides)))


def test_the_run_folder_holds_all_files(run):
    folder, metrics = run
    for name in ("config.yaml", "metrics.json", "reconstructions.png", "samples.png"):
        assert (folder / name).stat().st_size > 0, name
    assert {p.name for p in (folder / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    assert json.loads((folder / "metrics.json").read_text()) == metrics
    assert all(math.isfinite(value) for value in metrics.values())


def test_metrics_are_consistent(run):
    metrics = run[1]
    assert metrics["test/elbo"] == pytest.approx(-metrics["test/distortion"] - metrics["test/rate"])
    assert 0 <= metrics["test/rate"] <= 4 * math.log(8)
    # Other draws of 50 images give each bound: their order holds to within a nat.
    assert -metrics["test/elbo"] + 1 > metrics["test/nll_iw2"] > metrics["test/nll_exact"] - 1
    assert -metrics["test/elbo"] > metrics["test/nll_exact"]
    assert metrics["test/mutual_information"] <= math.log(50) + 1e-6


def test_tensorboard_has_scalars_pictures_and_hyperparameters(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run[0]), size_guidance={"scalars": 0})
    events.Reload()
    tags = events.Tags()
    assert {
        "train/loss",
        "train/learning_rate",
        "train/temperature",
        "train/relaxed_elbo",
        "val/elbo",
    } <= set(tags["scalars"])
    assert {"val/reconstructions", "val/samples", "val/code_usage"} <= set(tags["images"])
    assert len(events.Images("val/samples")) == 2
    assert "train/elbo" not in tags["scalars"], (
        "a relaxed training bound must not pass for the ELBO"
    )
    temperatures = [event.value for event in events.Scalars("train/temperature")]
    assert temperatures[0] == pytest.approx(1.0)
    assert temperatures == sorted(temperatures, reverse=True)
    assert temperatures[-1] == pytest.approx(0.2 + 0.8 * (1 + math.cos(math.pi * 39 / 40)) / 2)
    # The HParams tab is stored as a plugin summary.
    assert any("_hparams_" in tag for tag in events.summary_metadata)


def test_checkpoint_holds_plain_values_and_the_configuration(run):
    content = load_checkpoint(run[0] / "checkpoints" / "best.ckpt")
    assert check(RunConfig, content["config"]).model.num_latents == 4

    def plain(value):
        if isinstance(value, dict):
            return all(plain(k) and plain(v) for k, v in value.items())
        if isinstance(value, list | tuple):
            return all(map(plain, value))
        return value is None or isinstance(value, torch.Tensor | int | float | str | bool)

    assert plain({key: value for key, value in content.items() if key != "state_dict"})
    assert not any("_orig_mod" in key for key in content["state_dict"])


def _evaluate(folder, data_dir, output, *overrides):
    values = compose(
        "evaluate",
        [
            f"checkpoint={folder / 'checkpoints' / 'best.ckpt'}",
            f"data_dir={data_dir}",
            f"output={output}",
            "device=cpu",
            "num_samples=5",
            "progress_bar=false",
            *overrides,
        ],
    )
    return evaluate(check(EvaluateConfig, values))


@pytest.mark.parametrize("trained", [True, False], ids=["trained", "untrained"])
def test_metrics_depend_on_neither_batch_size_nor_repetition(
    run, make_config, tmp_path, data_dir, trained
):
    """Batches of 1, 7 and, twice, 1,000 images, for 103 validation images."""
    folder = run[0]
    if not trained:
        from dvae.tasks.vae.module import VAEModule

        torch.manual_seed(0)
        config = make_config("model.num_latents=4", "model.num_categories=8", "model.hidden=[16]")
        module = VAEModule(config.build_model())
        (tmp_path / "checkpoints").mkdir()
        content = {"state_dict": module.state_dict(), "config": config.model_dump()}
        torch.save(content, tmp_path / "checkpoints" / "best.ckpt")
        folder = tmp_path
    results = [
        _evaluate(
            folder,
            data_dir,
            tmp_path / "m.json",
            "split=val",
            "data.validation=103",
            f"batch_size={size}",
        )
        for size in (1, 7, 1000, 1000)
    ]
    assert results[2] == results[3]
    for other in results[:2]:
        assert other == pytest.approx(results[2], rel=1e-4)


def test_evaluation_reproduces_the_metrics_of_training(run, tmp_path, data_dir):
    """The val/elbo of the best checkpoint, on the validation images of training."""
    folder, metrics = run
    evaluated = _evaluate(folder, data_dir, tmp_path / "m.json", "split=val")
    assert set(evaluated) > {"val/elbo", "val/relaxed_elbo", "val/nll_iw5", "val/nll_exact"}
    assert evaluated["val/elbo"] == pytest.approx(metrics["val/elbo"], rel=1e-5)
    saved = json.loads((tmp_path / "m.json").read_text())
    assert saved["metrics"] == evaluated
    assert saved["split"] == "val"
    perplexity = saved["latents"]["usage_perplexity"]
    assert len(perplexity) == len(saved["latents"]["information"]) == 4
    assert sum(perplexity) / 4 == pytest.approx(evaluated["val/usage_perplexity"], rel=1e-5)
    assert all(1 <= value <= 8 for value in perplexity)


def test_evaluation_writes_beside_the_checkpoint(run, data_dir):
    _evaluate(run[0], data_dir, "null", "split=test", "num_samples=0")
    saved = json.loads((run[0] / "checkpoints" / "best.test.json").read_text())
    assert "test/nll_iw0" not in saved["metrics"]
    assert "test/elbo" in saved["metrics"]


def test_data_and_temperature_can_be_overridden(run, tmp_path, data_dir):
    def relaxed(*overrides):
        small = ["split=val", "data.validation=300", "num_samples=0"]
        return _evaluate(run[0], data_dir, tmp_path / "m.json", *small, *overrides)

    base, grey, cold = (
        relaxed(),
        relaxed("data.binarization=none"),
        relaxed("relaxed_temperature=0.01"),
    )
    assert grey["val/distortion"] != base["val/distortion"]
    assert cold["val/elbo"] == base["val/elbo"]
    gap = {
        name: abs(m["val/relaxed_elbo"] - m["val/elbo"])
        for name, m in (("base", base), ("cold", cold))
    }
    assert gap["cold"] < gap["base"]


SHAPES = {
    "prior": ((9, 4), ["num_images=9"]),
    "reconstructions": ((20, 4), ["num_images=20"]),
    "traversal": ((2, 4, 8, 4), ["num_images=2"]),
    "interpolation": ((3, 6, 4), ["num_images=3", "num_steps=6"]),
}


@pytest.mark.parametrize("what", SHAPES)
def test_samples_are_reproducible_from_the_seed(run, tmp_path, data_dir, what):
    import numpy as np
    from PIL import Image

    shape, options = SHAPES[what]

    def draw(seed, folder):
        values = compose(
            "sample",
            [
                f"checkpoint={run[0] / 'checkpoints' / 'last.ckpt'}",
                f"data_dir={data_dir}",
                f"output_dir={tmp_path / folder}",
                f"what={what}",
                f"seed={seed}",
                "device=cpu",
                *options,
            ],
        )
        picture = sample(check(SampleConfig, values))
        return np.asarray(Image.open(picture)), np.load(picture.with_suffix(".npz"))["codes"]

    picture, codes = draw(0, "a")
    again, codes_again = draw(0, "b")
    assert codes.shape == shape
    assert 0 <= codes.min() <= codes.max() < 8
    assert (picture == again).all()
    assert (codes == codes_again).all()
    assert (draw(1, "c")[1] != codes).any()


def test_default_folder_of_samples_and_too_many_images(run, data_dir):
    common = [f"checkpoint={run[0] / 'checkpoints' / 'last.ckpt'}", f"data_dir={data_dir}"]
    assert sample(check(SampleConfig, compose("sample", common))).parent == run[0] / "samples"
    values = compose("sample", [*common, "what=interpolation", "num_images=5001"])
    with pytest.raises(
        UserError, match="num_images: expected at most the 10000 images .* 5001 pairs"
    ):
        sample(check(SampleConfig, values))


SMOKE = [
    f"{group}={path.stem}"
    for group in (
        "estimator",
        "model",
        "prior",
        "temperature",
        "objective",
        "optimizer",
        "callbacks",
    )
    for path in sorted((CONFIGS / group).glob("*.yaml"))
    # The tests of the other tasks cover their members.
    if path.stem not in ("actor_critic", "class_style", "labels", "likelihood", "stochastic")
] + [
    "data.binarization=fixed",
    "data.binarization=none",
    "data.validation=0",
    "precision=64",
    "precision=bf16",
    "objective.warmup=0.5",
    "trainer.gradient_clip=1.0",
    "callbacks.early_stopping=1",
    "callbacks.gradient_snr=1",
    "temperature.steps=1",
    "objective.num_samples=3",
    "estimator.backward_temperature=0.5 estimator=st_gumbel_softmax",
    "objective.kl=relaxed objective.prior_temperature=0.5",
    "estimator=rloo objective.num_samples=2",
    "model.normalization=layer",
]


# Options that another option needs, or that keep it small.
BESIDE = {
    "temperature=none": ["estimator=zgr"],
    "estimator=exact": ["objective.num_samples=1"],
    "model=resnet": ["model.downsample=8", "model.channels=8", "model.num_categories=4"],
}


@pytest.mark.parametrize("option", SMOKE)
def test_every_option_trains_two_steps(make_config, option):
    kind = option if option.startswith("model=") else "model=mlp"
    small = {
        "model=mlp": ["model.num_latents=2", "model.hidden=[16]"],
        "model=conv": ["model.num_latents=2"],
    }.get(kind, [])
    options = ["debug=fast", "data.eval_batch_size=50", *option.split(), *small]
    metrics = train(make_config(*options, *BESIDE.get(option, [])))
    assert all(math.isfinite(value) for value in metrics.values())


def test_checkpoints_of_compiled_runs_load(make_config, tmp_path):
    config = make_config(*SMALL, "compile=true")
    assert math.isfinite(train(config)["val/elbo"])
    load_module(tmp_path / "run" / "checkpoints" / "last.ckpt")


def _curve(folder, tag="train/loss"):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {event.step: event.value for event in events.Scalars(tag)}


FASTER = [
    "trainer.steps_per_call=1",
    "trainer.steps_per_call=4",
    "trainer.steps_per_call=100",
    "trainer.steps_per_call=4 callbacks=none",
    "trainer.steps_per_call=7 trainer.progress_bar=true",
]


@pytest.mark.parametrize("precision", ["32", "bf16"])
def test_steps_per_call_changes_no_number(make_config, tmp_path, precision):
    """Loss at every step, validation curve and test metrics do not depend on `steps_per_call`."""
    options = [*SMALL, "trainer.limit_train_batches=10", "trainer.max_epochs=2"]
    runs = []
    for number, faster in enumerate(FASTER):
        folder = tmp_path / str(number)
        config = make_config(*options, f"precision={precision}", *faster.split(), output=folder)
        runs.append((train(config), _curve(folder), _curve(folder, "val/elbo")))
    assert list(runs[0][1]) == list(range(20))
    assert list(runs[0][2]) == [10, 20]
    assert all(run == runs[0] for run in runs[1:])


def test_compiled_runs_learn_equally_well(make_config, tmp_path):
    """Losses agree at first; later only their means do, as rounding errors grow."""
    options = ["trainer.limit_train_batches=150", "trainer.max_epochs=1", "trainer.log_every=1"]
    curves = []
    for name in ("false", "true"):
        folder = tmp_path / name
        train(make_config(*SMALL, *options, f"compile={name}", output=folder))
        curves.append(torch.tensor(list(_curve(folder).values())))
    assert torch.allclose(curves[0][:10], curves[1][:10], rtol=1e-4)
    difference = (curves[0] - curves[1])[10:]
    # Within 4 standard errors, plus a margin for rounding.
    assert difference.mean().abs() < 4 * difference.std() / len(difference) ** 0.5 + 1e-2
    assert curves[0][-20:].mean() < 0.9 * curves[0][:5].mean()


def test_same_seed_same_numbers(make_config, tmp_path):
    options = [*SMALL, "trainer.limit_train_batches=5"]
    first, again, other = (
        train(make_config(*options, f"seed={seed}", output=tmp_path / name))
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert first == again
    assert first != other


def test_resumed_run_continues_step_and_temperature(make_config, tmp_path):
    options = [*SMALL, "trainer.max_epochs=3", "temperature.minimum=0.2"]
    whole = train(make_config(*options, output=tmp_path / "whole"))
    # The first part has fewer epochs, but the temperature schedule of the whole run.
    start = make_config(
        *options, "temperature.steps=6", "trainer.max_epochs=2", output=tmp_path / "part"
    )
    train(start)
    resumed = make_config(
        *options,
        f"resume={tmp_path / 'part' / 'checkpoints' / 'last.ckpt'}",
        output=tmp_path / "rest",
    )
    metrics = train(resumed)
    contents = [
        load_checkpoint(tmp_path / n / "checkpoints" / "last.ckpt") for n in ("whole", "rest")
    ]
    assert contents[0]["global_step"] == contents[1]["global_step"] == 6
    temperatures = [c["state_dict"]["vae.layer.temperature"] for c in contents]
    assert torch.equal(*temperatures)
    assert temperatures[0].item() == pytest.approx(0.2 + 0.8 * (1 + math.cos(math.pi * 5 / 6)) / 2)
    assert metrics.keys() == whole.keys()


@pytest.mark.parametrize("damage", ["text", "pickle", "truncated", "foreign", "weights", "config"])
def test_broken_checkpoints_are_refused(run, tmp_path, damage):
    path = tmp_path / "broken.ckpt"
    shutil.copy(run[0] / "checkpoints" / "best.ckpt", path)
    content = torch.load(path, weights_only=True)
    marker = tmp_path / "executed"
    if damage == "text":
        path.write_text("not a checkpoint")
    elif damage == "pickle":

        class Payload:
            def __reduce__(self):
                return (open, (str(marker), "w"))

        torch.save({"config": Payload(), "state_dict": {}}, path)
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:-1000])
    elif damage == "foreign":
        torch.save({"model": torch.zeros(3)}, path)
    elif damage == "weights":
        content["state_dict"]["vae.encoder.encoder.head.bias"] = torch.zeros(3)
        torch.save(content, path)
    else:
        content["config"]["model"]["name"] = "os.system"
        torch.save(content, path)
    before = path.read_bytes()
    with pytest.raises(UserError, match="checkpoint: ") as caught:
        load_module(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert not marker.exists()
    assert path.read_bytes() == before
