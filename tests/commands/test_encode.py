"""Codes of whole splits, and pictures of codes and images of one's own."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from dvae.commands.checking import check
from dvae.commands.cli import compose
from dvae.commands.encode import encode
from dvae.commands.sample import sample
from dvae.data.binarize import to_unit
from dvae.data.sources.mnist import MNIST
from dvae.errors import UserError
from dvae.tasks.options import EncodeConfig, SampleConfig
from dvae.tasks.vae.module import VAEModule


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, data_dir):
    """An untrained grid of 4 × 5 codes of 300 categories, for images of 14 × 18 pixels."""
    from dvae.training.config import RunConfig

    folder = tmp_path_factory.mktemp("run")
    sizes = ["model.downsample=4", "model.channels=8", "model.blocks=1", "model.num_categories=300"]
    data = ["data.size=[14,18]", "data.validation=205", f"paths.data_dir={data_dir}"]
    own = [*sizes, *data, f"paths.output_dir={folder}"]
    config = check(RunConfig, compose("train", ["model=resnet", *own]))
    torch.manual_seed(0)
    module = VAEModule(config.build_model())
    (folder / "checkpoints").mkdir()
    path = folder / "checkpoints" / "best.ckpt"
    torch.save({"state_dict": module.state_dict(), "config": config.model_dump()}, path)
    return path


@pytest.fixture
def vae(checkpoint):
    from dvae.tasks.vae.loading import load_vae

    return load_vae(checkpoint)[0].vae


@pytest.fixture
def run(checkpoint, data_dir):
    """Calls a command with the checkpoint."""
    commands = {"encode": (EncodeConfig, encode), "sample": (SampleConfig, sample)}

    def call(name, *overrides):
        schema, command = commands[name]
        shared = [f"checkpoint={checkpoint}", f"data_dir={data_dir}", "device=cpu"]
        return command(check(schema, compose(name, [*shared, *overrides])))

    return call


@pytest.fixture
def encoded(run, tmp_path):
    """Encodes the 205 validation images into the test's folder."""

    def call(*overrides):
        options = ["splits=[val]", "progress_bar=false", f"output_dir={tmp_path}"]
        return run("encode", *options, *overrides)

    return call


def test_codes_are_the_most_probable_ones_in_the_order_of_the_files(
    encoded, vae, checkpoint, data_dir, tmp_path
):
    from dvae.tasks.loading import load_module

    assert encoded("logits=true") == [tmp_path / "val.npy"]
    codes = np.load(tmp_path / "val.npy", mmap_mode="r")
    assert isinstance(codes, np.memmap)
    assert (codes.shape, codes.dtype) == ((205, 4, 5), np.uint16)
    images = to_unit(load_module(checkpoint)[1].data.build(data_dir, 0).images("val"))
    with torch.no_grad():
        logits = vae.encode(images)
    assert (codes.reshape(205, 20) == logits.argmax(-1).numpy()).mean() > 0.999
    stored = np.load(tmp_path / "val.logits.npy", mmap_mode="r")
    assert (stored.shape, stored.dtype) == ((205, 4, 5, 300), np.float32)
    assert (stored.argmax(-1) == codes).all()
    assert np.allclose(stored.reshape(205, 20, 300), logits.numpy(), atol=1e-4)
    about = json.loads((tmp_path / "val.json").read_text())
    assert (about["grid"], about["num_categories"], about["names"]) == ([4, 5], 300, None)


def test_drawn_codes_depend_on_the_seed_only_and_follow_the_logits(encoded, tmp_path):
    def draw(*overrides):
        encoded("codes=sample", "logits=true", *overrides)
        return np.array(np.load(tmp_path / "val.npy")), np.load(tmp_path / "val.logits.npy")

    codes, logits = draw("seed=1")
    assert (draw("seed=1", "batch_size=7")[0] == codes).all()
    assert (draw("seed=2")[0] != codes).mean() > 0.5
    # Their mean log-probability is −entropy; 4,100 codes, 4 standard errors.
    log_q = torch.from_numpy(np.array(logits)).log_softmax(-1)
    drawn = log_q.gather(-1, torch.from_numpy(codes.astype(np.int64)).unsqueeze(-1))
    expected = (log_q.exp() * log_q).sum(-1)
    difference = drawn.squeeze(-1) - expected
    assert difference.mean().abs() < 4 * difference.std() / difference.numel() ** 0.5


def test_an_error_leaves_older_codes_as_they_were(encoded, monkeypatch, tmp_path):
    encoded()
    before = (tmp_path / "val.npy").read_bytes()
    calls = iter(range(3))

    def fail(self, images):
        if next(calls) == 2:
            raise OSError(28, "No space left on device")
        return torch.zeros(len(images), 20, 300)

    monkeypatch.setattr("dvae.models.vae.VAE.encode", fail)
    with pytest.raises(OSError, match="No space left"):
        encoded()
    assert (tmp_path / "val.npy").read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"val.npy", "val.json"}


def test_names_of_files_are_written(encoded, monkeypatch, tmp_path):
    names = [f"träin/{number}.png" for number in range(205)]
    monkeypatch.setattr(MNIST, "names", lambda self, split: names)
    encoded()
    assert json.loads((tmp_path / "val.json").read_text())["names"] == names


def test_few_categories_take_one_byte(make_config, data_dir, tmp_path):
    config = make_config("model.num_latents=3", "model.hidden=[4]", "data.validation=50")
    path = tmp_path / "a.ckpt"
    torch.save(
        {
            "state_dict": VAEModule(config.build_model()).state_dict(),
            "config": config.model_dump(),
        },
        path,
    )
    options = [f"checkpoint={path}", f"data_dir={data_dir}", f"output_dir={tmp_path}"]
    encode(check(EncodeConfig, compose("encode", [*options, "splits=[val]", "device=cpu"])))
    codes = np.load(tmp_path / "val.npy")
    assert (codes.shape, codes.dtype) == ((50, 3), np.uint8)


def test_decoded_codes_are_the_models_pictures(run, vae, tmp_path):
    codes = np.random.default_rng(0).integers(300, size=(3, 4, 5), dtype=np.uint16)
    np.save(tmp_path / "c.npy", codes)
    options = ["what=decode", f"codes={tmp_path / 'c.npy'}", f"output_dir={tmp_path}"]
    picture = run("sample", *options, "separate=true")
    assert picture == tmp_path / "decode.png"
    files = sorted((tmp_path / "decode").iterdir())
    assert [path.name for path in files] == ["00000.png", "00001.png", "00002.png"]
    with torch.no_grad():
        flat = torch.from_numpy(codes.astype(np.int64)).reshape(3, 20)
        means = vae.likelihood.mean(vae.decode_codes(flat))[:, 0].numpy()
    for path, mean in zip(files, means, strict=True):
        found = np.asarray(Image.open(path).convert("L")) / 255
        assert found.shape == (14, 18)
        assert np.abs(found - mean).max() < 1 / 255
    # The codes that sampling writes can be decoded again.
    again = run(
        "sample", "what=decode", f"codes={tmp_path / 'decode.npz'}", f"output_dir={tmp_path}"
    )
    assert (np.load(again.with_suffix(".npz"))["codes"].reshape(3, 4, 5) == codes).all()


def test_images_of_ones_own_are_cropped_resized_and_turned_upright(run, tmp_path):
    """Of any size and mode; `interpolation` takes two."""
    ramp = np.linspace(0, 255, 60 * 40).reshape(40, 60).astype(np.uint8)
    Image.fromarray(ramp).save(tmp_path / "a=1.png")
    Image.fromarray(np.stack([ramp] * 3, -1)).save(tmp_path / "b.jpg")
    files = f"images=['{tmp_path / 'a=1.png'}','{tmp_path / 'b.jpg'}']"
    for what, shape in (("reconstructions", (2, 20)), ("interpolation", (1, 10, 20))):
        picture = run("sample", f"what={what}", files, f"output_dir={tmp_path}")
        assert np.load(picture.with_suffix(".npz"))["codes"].shape == shape


REFUSED = {
    "codes: expected a file with codes for what=decode": ["what=decode"],
    "codes: expected null with what=prior": ["codes={codes}"],
    "codes: expected 0 to 299, as the checkpoint has 300 categories, found 0 to 300": [
        "what=decode",
        "codes={large}",
    ],
    r"codes: expected integers of shape \(…, 4, 5\), as in the checkpoint, found uint8 of shape": [
        "what=decode",
        "codes={shape}",
    ],
    "codes: expected integers .* found float64": ["what=decode", "codes={floats}"],
    "codes: expected a .npy file, or a .npz file": ["what=decode", "codes={text}"],
    "num_images: expected at most the 2 in": ["what=decode", "codes={codes}", "num_images=3"],
    "images: expected image files, found another": ["what=reconstructions", "images={text}"],
    "images: expected null with what=prior": ["images={text}"],
    "split: expected null with images of your own": [
        "what=reconstructions",
        "images={text}",
        "split=val",
    ],
    "No such file": ["what=decode", "codes=none.npy"],
    "what=traversal: expected at most 50,000 images": ["what=traversal", "num_images=10"],
}


@pytest.mark.parametrize("message", REFUSED)
def test_other_files_are_refused_in_one_line(run, tmp_path, message):
    np.save(tmp_path / "codes.npy", np.zeros((2, 4, 5), np.uint8))
    np.save(tmp_path / "large.npy", np.array([[[0] * 5] * 4, [[300] * 5] * 4]))
    np.save(tmp_path / "shape.npy", np.zeros((2, 5, 4), np.uint8))
    np.save(tmp_path / "floats.npy", np.zeros((2, 4, 5)))
    (tmp_path / "text").write_text("text")
    files = {path.stem: path for path in tmp_path.iterdir()}
    overrides = [option.format(**files) for option in REFUSED[message]]
    with pytest.raises((UserError, FileNotFoundError), match=message) as caught:
        run("sample", *overrides, f"output_dir={tmp_path / 'out'}")
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "out").iterdir())


def test_images_of_another_shape_are_refused(run, monkeypatch):
    from dvae.data.sources.torchvision_options import KMNISTOptions

    monkeypatch.setattr(KMNISTOptions, "channels", 3, raising=False)
    for command in ("encode", "sample"):
        with pytest.raises(UserError, match=r"expected images of shape \(1, 14, 18\), as in"):
            run(command, "data.name=kmnist")


def test_only_a_vae_can_encode(data_dir):
    from dvae.commands.cli import ROOT

    path = ROOT / "tests" / "fixtures" / "0.1.0" / "policy.ckpt"
    with pytest.raises(UserError, match="expected a checkpoint of task=vae, found task=policy"):
        encode(check(EncodeConfig, compose("encode", [f"checkpoint={path}"])))
