"""Arrays of images in NumPy's files."""

import numpy as np
import pytest
import torch

from dvae.commands.checking import check
from dvae.commands.cli import compose
from dvae.data.sources.arrays_options import ArraysOptions
from dvae.errors import UserError
from dvae.options import parse
from dvae.training.config import RunConfig


def _images(count, *shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def _save(folder, **arrays):
    paths = {}
    for split, array in arrays.items():
        paths[split] = str(folder / f"{split}.npy")
        np.save(paths[split], array)
    return paths


def _module(paths, data_dir, **others):
    return ArraysOptions(**paths, **others).build(data_dir, 0)


@pytest.mark.parametrize(
    ("shape", "image_shape", "axes"),
    [
        ((6, 8), (1, 6, 8), None),
        ((3, 6, 8), (3, 6, 8), None),
        ((1, 6, 8), (1, 6, 8), None),
        ((6, 8, 3), (3, 6, 8), (0, 3, 1, 2)),
        ((6, 8, 1), (1, 6, 8), (0, 3, 1, 2)),
        # Both axes may be the channels: the last one is.
        ((3, 8, 3), (3, 3, 8), (0, 3, 1, 2)),
    ],
)
def test_layouts(tmp_path, shape, image_shape, axes):
    train, test = _images(40, *shape), _images(7, *shape, seed=1)
    paths = _save(tmp_path, train=train, test=test)
    options = ArraysOptions(**paths)
    assert options.image_shape == image_shape
    module = options.build(tmp_path / "data", 0)

    def expected(array):
        array = array if axes is None else array.transpose(axes)
        return torch.from_numpy(np.ascontiguousarray(array)).reshape(-1, *image_shape)

    assert torch.equal(module.images("train"), expected(train)[:36])
    assert torch.equal(module.images("val"), expected(train)[36:])
    assert torch.equal(module.images("test"), expected(test))
    # What can be mapped as it is, is not copied.
    copied = axes is not None and image_shape[0] > 1
    assert (tmp_path / "data" / "prepared").exists() == copied


@pytest.mark.parametrize("name", ["images", "x"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_archives(tmp_path, save, name):
    paths = _save(tmp_path, test=_images(5, 4, 4))
    paths["train"] = str(tmp_path / "train.npz")
    train = _images(20, 4, 4, 3)
    others = {"labels": np.arange(20)} if name == "images" else {}
    save(paths["train"], **{name: train}, **others)
    np.savez(paths["test"] + ".npz", _images(5, 4, 4, 3))
    paths["test"] += ".npz"
    module = _module(paths, tmp_path / "data")
    assert torch.equal(module.images("train"), torch.from_numpy(train.transpose(0, 3, 1, 2))[:18])
    assert module.images("test").shape == (5, 3, 4, 4)


def test_own_validation_images(tmp_path):
    arrays = {split: _images(9, 4, 4, seed=i) for i, split in enumerate(("train", "val", "test"))}
    module = _module(_save(tmp_path, **arrays), tmp_path / "data")
    for split, array in arrays.items():
        assert torch.equal(module.images(split)[:, 0], torch.from_numpy(array))


@pytest.mark.parametrize(("validation", "expected"), [(12, 12), (0.5, 20), (0.001, 1), (0, 0)])
def test_validation_is_a_count_or_a_fraction(tmp_path, validation, expected):
    paths = _save(tmp_path, train=_images(40, 4, 4), test=_images(3, 4, 4))
    module = _module(paths, tmp_path / "data", validation=validation)
    assert len(module.images("train")) == 40 - expected
    assert len(module.images("val")) == (expected or 3)
    assert module.validates == (expected > 0)


@pytest.mark.parametrize("order", ["C", "F"])
def test_another_size_is_written_out_once(tmp_path, monkeypatch, order):
    paths = _save(
        tmp_path, train=np.asarray(_images(600, 8, 8), order=order), test=_images(9, 8, 8)
    )
    module = _module(paths, tmp_path / "data", size=[4, 6])
    images = module.images("train")
    assert images.shape == (540, 1, 4, 6)
    mean = _images(600, 8, 8)[:540].mean()
    assert images.float().mean().item() == pytest.approx(mean, abs=1)

    def refuse(*arguments):
        raise AssertionError("written again")

    monkeypatch.setattr("dvae.data.sources.arrays._write", refuse)
    assert torch.equal(_module(paths, tmp_path / "data", size=[4, 6]).images("train"), images)


def test_binarized_once_they_equal_images_in_memory(tmp_path):
    paths = _save(tmp_path, train=_images(600, 8, 8), test=_images(300, 8, 8))
    modules = [_module(paths, tmp_path, binarization="fixed") for _ in range(2)]
    modules[1].source.mapped = False
    for split in ("train", "val", "test"):
        one, other = (module.images(split) for module in modules)
        assert torch.equal(one, other)
        assert set(one.unique().tolist()) == {0, 255}


def _text(path):
    path.write_text("no array")


def _truncated(path):
    np.save(path, _images(40, 8, 8))
    path.write_bytes(path.read_bytes()[:500])


def _several(path):
    with path.open("wb") as file:
        np.savez(file, a=_images(2, 4, 4), b=_images(2, 4, 4))


WRONG = {
    "floats": (lambda path: np.save(path, np.zeros((3, 4, 4))), "found float64 .3, 4, 4."),
    "two axes": (lambda path: np.save(path, _images(3, 4)), r"found uint8 \(3, 4\)"),
    "two channels": (lambda path: np.save(path, _images(3, 2, 4, 4)), r"found uint8 \(3, 2, 4, 4"),
    "none": (lambda path: np.save(path, _images(0, 4, 4)), r"found uint8 \(0, 4, 4\)"),
    "objects": (lambda path: np.save(path, np.array([None])), "found object"),
    "text": (_text, "expected an .npy or .npz file, found another at"),
    "empty": (lambda path: path.touch(), "expected an .npy or .npz file, found another at"),
    "zip": (_several, "expected one array, or one that is named images, found a, b in"),
    "truncated": (_truncated, "expected a complete file, found"),
    "missing": (lambda path: None, "expected an .npy or .npz file, found nothing at"),
    "folder": (lambda path: path.mkdir(), "expected an .npy or .npz file, found a folder at"),
}


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize("split", ["train", "test"])
def test_wrong_files_are_refused_in_one_line(tmp_path, kind, split):
    write, message = WRONG[kind]
    paths = _save(tmp_path, train=_images(40, 8, 8), test=_images(3, 8, 8))
    paths[split] = str(tmp_path / "wrong.npy")
    write(tmp_path / "wrong.npy")
    with pytest.raises(UserError, match=f"data.{split}: .*{message}") as caught:
        parse(ArraysOptions, paths).build(tmp_path / "data", 0).setup()
    assert "\n" not in str(caught.value)


def test_other_channels_than_the_training_images(tmp_path):
    paths = _save(tmp_path, train=_images(40, 4, 4, 3), test=_images(3, 4, 4))
    with pytest.raises(UserError, match="data.test: expected images with 3 channels, found 1 in"):
        _module(paths, tmp_path / "data").setup()


def test_a_checkpoint_holds_the_shape(tmp_path):
    """The files may be gone when a checkpoint is read."""
    paths = _save(tmp_path, train=_images(4, 8, 12, 3), test=_images(3, 8, 12, 3))
    given = [f"data.{split}={path}" for split, path in paths.items()]
    composed = compose(
        "train", ["data=arrays", *given, "likelihood=discretized_logistic", "paths.output_dir=run"]
    )
    stored = check(RunConfig, composed).model_dump()
    assert stored["data"]["size"] == [8, 12]
    assert stored["data"]["channels"] == 3
    (tmp_path / "train.npy").unlink()
    assert check(RunConfig, stored).data.image_shape == (3, 8, 12)
