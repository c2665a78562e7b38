import gzip
import hashlib
import pickle
import shutil
import struct
import sys
import time
import types
import zipfile
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets

from dvae.data.binarize import to_unit
from dvae.data.loader import BatchOrder, ImageLoader
from dvae.data.sources import SOURCES
from dvae.data.sources.bundled import MNIST_MD5, unpack_mnist
from dvae.errors import UserError
from dvae.files import lock_folder


def _load(name, root, train):
    return SOURCES[name]().build_source(root).load(train)


def _md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


def test_bundled_files_are_mnist(data_dir):
    unpack_mnist(data_dir)
    folder = data_dir / "MNIST" / "raw"
    assert {path.name: _md5(path) for path in folder.iterdir()} == MNIST_MD5
    test = _load("mnist", data_dir, False)
    assert test.shape == (10_000, 1, 28, 28)
    assert test.dtype == torch.uint8
    assert torch.equal(test[:, 0], datasets.MNIST(data_dir, train=False).data)


def test_unpacking_again_changes_nothing(data_dir):
    unpack_mnist(data_dir)
    before = {p: p.stat().st_mtime_ns for p in (data_dir / "MNIST" / "raw").iterdir()}
    unpack_mnist(data_dir)
    assert {p: p.stat().st_mtime_ns for p in before} == before


def test_broken_files_are_named_and_left_alone(tmp_path):
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    broken = folder / "train-images-idx3-ubyte"
    broken.write_bytes(b"truncated")
    with pytest.raises(UserError, match=f"{broken}: expected MNIST with md5 6bbc.*, found"):
        _load("mnist", tmp_path, True)
    assert broken.read_bytes() == b"truncated"


def test_unwritable_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"paths.data_dir: expected a folder .* found .*file"):
        unpack_mnist(tmp_path / "file")


@pytest.fixture
def idx_folder(tmp_path):
    """MNIST's test files under the names that other data sets use."""

    def make(name, renamed):
        folder = tmp_path / name / "raw"
        folder.mkdir(parents=True)
        for old, new in renamed.items():
            packed = files("dvae").joinpath(f"data/mnist/{old}.gz").read_bytes()
            (folder / new).write_bytes(gzip.decompress(packed))
        return tmp_path

    return make


TEST_FILES = ["t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"]
TRAIN_FILES = ["train-images-idx3-ubyte", "train-labels-idx1-ubyte"]


@pytest.mark.parametrize(
    ("name", "folder"), [("fashion_mnist", "FashionMNIST"), ("kmnist", "KMNIST")]
)
def test_idx_data_sets(idx_folder, name, folder):
    names = {old: old for old in TEST_FILES} | {"t10k-images-idx3-ubyte": "t10k-images-idx3-ubyte"}
    root = idx_folder(folder, names)
    for kind in ("images-idx3", "labels-idx1"):
        shutil.copy(
            root / folder / "raw" / f"t10k-{kind}-ubyte",
            root / folder / "raw" / f"train-{kind}-ubyte",
        )
    assert _load(name, root, True).shape == (10_000, 1, 28, 28)


def test_emnist_is_turned_upright(idx_folder, data_dir):
    root = idx_folder(
        "EMNIST", {old: old.replace("t10k", "emnist-balanced-test") for old in TEST_FILES}
    )
    upright = _load("mnist", data_dir, False).transpose(2, 3)
    assert torch.equal(_load("emnist", root, False), upright)


def test_omniglot_is_inverted_and_resized(tmp_path, monkeypatch):
    folder = tmp_path / "omniglot-py" / "images_background" / "Latin" / "character01"
    folder.mkdir(parents=True)
    drawing = np.full((105, 105), 255, np.uint8)
    drawing[30:60, 20:90] = 0
    for i in range(3):
        Image.fromarray(drawing).convert("1").save(folder / f"{i}.png")
    archive = tmp_path / "omniglot-py" / "images_background.zip"
    archive.write_bytes(b"the zip itself is only checked")
    monkeypatch.setitem(datasets.Omniglot.zips_md5, "images_background", _md5(archive))
    images = _load("omniglot", tmp_path, True)
    assert images.shape == (3, 1, 28, 28)
    assert images[0, 0, 12, 14] == 255, "ink should be bright"
    assert images[0, 0, 0, 0] == 0
    assert images.float().mean() == pytest.approx((255 - drawing).mean(), rel=0.03)


def _cifar(folder, dataset, monkeypatch, key):
    """Batches of two pictures each, under the checksums that torchvision expects."""
    root = folder / dataset.base_folder
    root.mkdir()
    pixels = np.arange(2 * 3072, dtype=np.uint32).astype(np.uint8).reshape(2, 3072)
    for name, _ in [*dataset.train_list, *dataset.test_list]:
        (root / name).write_bytes(pickle.dumps({"data": pixels, key: [3, 9]}))
    meta = root / dataset.meta["filename"]
    meta.write_bytes(pickle.dumps({dataset.meta["key"]: [str(i) for i in range(10)]}))
    for lists in ("train_list", "test_list"):
        files = [[name, _md5(root / name)] for name, _ in getattr(dataset, lists)]
        monkeypatch.setattr(dataset, lists, files)
    monkeypatch.setattr(dataset, "meta", dataset.meta | {"md5": _md5(meta)})
    return torch.from_numpy(pixels.reshape(2, 3, 32, 32))


@pytest.mark.parametrize(
    ("name", "dataset", "key", "batches"),
    [("cifar10", datasets.CIFAR10, "labels", 5), ("cifar100", datasets.CIFAR100, "fine_labels", 1)],
)
def test_cifar(tmp_path, monkeypatch, name, dataset, key, batches):
    expected = _cifar(tmp_path, dataset, monkeypatch, key)
    assert torch.equal(_load(name, tmp_path, True), expected.repeat(batches, 1, 1, 1))
    assert torch.equal(_load(name, tmp_path, False), expected)
    source = SOURCES[name]().build_source(tmp_path)
    assert source.read_labels(train=False).tolist() == [3, 9]
    assert SOURCES[name](size=16).build_source(tmp_path).load(train=False).shape == (2, 3, 16, 16)


def test_svhn(tmp_path, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 4), dtype=np.uint8)
    content = {"X": pixels, "y": np.array([[1], [10], [2], [9]])}
    reader = types.ModuleType("scipy.io")
    reader.loadmat = lambda path: content
    package = types.ModuleType("scipy")
    package.io = reader
    for split, (_, name, _) in datasets.SVHN.split_list.items():
        (tmp_path / name).write_text(split)
    checked = {
        split: [url, name, _md5(tmp_path / name)]
        for split, (url, name, _) in datasets.SVHN.split_list.items()
    }
    monkeypatch.setattr(datasets.SVHN, "split_list", checked)
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(UserError, match=r"data=svhn: expected the package scipy.*\[datasets\]"):
        _load("svhn", tmp_path, True)
    monkeypatch.setitem(sys.modules, "scipy", package)
    monkeypatch.setitem(sys.modules, "scipy.io", reader)
    assert torch.equal(_load("svhn", tmp_path, True), torch.from_numpy(pixels).permute(3, 2, 0, 1))
    labels = SOURCES["svhn"]().build_source(tmp_path).read_labels(train=True)
    assert labels.tolist() == [1, 0, 2, 9]


def test_celeba_is_split_as_published(tmp_path):
    folder = tmp_path / "celeba" / "img_align_celeba"
    folder.mkdir(parents=True)
    lines = []
    for number, split in enumerate([0, 0, 0, 1, 2, 2], 1):
        face = Image.new("RGB", (178, 218), (0, 0, 40 * number))
        face.save(folder / f"{number:06}.jpg")
        lines.append(f"{number:06}.jpg {split}\n")
    (folder.parent / "list_eval_partition.txt").write_text("".join(lines))
    module = SOURCES["celeba"](size=16).build(tmp_path, 0)
    found = {
        split: {
            name: int(image[2].float().mean().round())
            for name, image in zip(module.source.names(split), module.images(split), strict=True)
        }
        for split in ("train", "val", "test")
    }
    expected = {"train": (1, 2, 3), "val": (4,), "test": (5, 6)}
    for split, numbers in expected.items():
        assert found[split].keys() == {f"{number:06}.jpg" for number in numbers}
        for name, blue in found[split].items():
            assert abs(blue - 40 * int(name.split(".")[0])) <= 2
    assert module.images("train").shape == (3, 3, 16, 16)


OFFLINE = ["fashion_mnist", "kmnist", "emnist", "omniglot", "cifar10", "cifar100", "svhn", "celeba"]


@pytest.mark.parametrize("name", OFFLINE)
def test_error_offline_names_the_missing_files(tmp_path, monkeypatch, name):
    def offline(*args, **options):
        raise OSError("no route to host")

    for module in ("mnist", "omniglot", "cifar"):
        monkeypatch.setattr(f"torchvision.datasets.{module}.download_and_extract_archive", offline)
    monkeypatch.setattr("torchvision.datasets.svhn.download_url", offline)
    monkeypatch.setattr("torchvision.datasets.celeba.download_file_from_google_drive", offline)
    with pytest.raises(UserError) as caught:
        _load(name, tmp_path, True)
    message = str(caught.value)
    files = SOURCES[name]().build_source(tmp_path).files
    assert message.startswith(f"data={name}: expected the files {files} in {tmp_path}")
    assert "\n" not in message


class _Remote:
    """Stands for torchvision's data set: takes a while to unpack what it has downloaded."""

    downloads = 0
    offline = False

    def __init__(self, root, train, download):
        folder = root / "FashionMNIST" / "raw"
        paths = [folder / name for name in (*TEST_FILES, *TRAIN_FILES)]
        if download and not all(path.exists() for path in paths):
            if type(self).offline:
                raise OSError("no route to host")
            type(self).downloads += 1
            folder.mkdir(parents=True, exist_ok=True)
            for path in paths:
                dimensions = 3 if "images" in path.name else 1
                sizes = struct.pack(f">{dimensions}I", 4, *([28] * (dimensions - 1)))
                path.write_bytes(bytes([0, 0, 8, dimensions]) + sizes)
                time.sleep(0.05)
                with path.open("ab") as file:
                    file.write(bytes(4 * 28 ** (dimensions - 1)))
        if not all(path.exists() for path in paths):
            raise RuntimeError("Dataset not found.")
        self.data = datasets.mnist.read_image_file(paths[0])

    def __len__(self):
        return len(self.data)


@pytest.fixture
def remote(monkeypatch):
    kind = type("Remote", (_Remote,), {})
    monkeypatch.setattr("dvae.data.sources.torchvision.FashionMNIST.dataset", kind)
    return kind


def _source(root):
    return SOURCES["fashion_mnist"]().build_source(root)


def test_one_process_downloads_while_others_wait(tmp_path, remote, capsys):
    """A lock excludes threads as it does processes."""
    sources = [_source(tmp_path / "new") for _ in range(4)]
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda source: source.prepare(), sources))
    assert remote.downloads == 1
    assert all(source.load(True).shape == (4, 1, 28, 28) for source in sources)
    assert "data=fashion_mnist: waiting for another process" in capsys.readouterr().out


def test_complete_files_need_no_lock(tmp_path, remote):
    """They may lie in a folder that cannot be written to."""
    _source(tmp_path).prepare()
    with lock_folder(tmp_path):
        _source(tmp_path).prepare()
    assert remote.downloads == 1


@pytest.mark.parametrize("size", [-1, 0, 3, 100])
def test_truncated_files_are_downloaded_again(tmp_path, remote, size):
    _source(tmp_path).prepare()
    broken = tmp_path / "FashionMNIST" / "raw" / TRAIN_FILES[0]
    whole = broken.read_bytes()
    broken.write_bytes(whole[:size])
    _source(tmp_path).prepare()
    assert remote.downloads == 2
    assert broken.read_bytes() == whole
    # Without a connection, the file is named and left as it is.
    broken.write_bytes(whole[:size])
    remote.offline = True
    with pytest.raises(UserError, match=f"data=fashion_mnist: {broken}: expected .* remove it"):
        _source(tmp_path).prepare()
    assert broken.read_bytes() == whole[:size]
    assert {path.name for path in broken.parent.iterdir()} == {*TEST_FILES, *TRAIN_FILES}


def test_an_archive_that_was_unpacked_in_part_is_named(tmp_path, monkeypatch):
    """Torchvision would take the drawings that are there for all."""
    archive = tmp_path / "omniglot-py" / "images_background.zip"
    archive.parent.mkdir()
    with zipfile.ZipFile(archive, "w") as file:
        for number in range(3):
            file.writestr(f"images_background/Latin/character01/{number}.png", b"")
        file.writestr("__MACOSX/images_background/0.png", b"")
    with zipfile.ZipFile(archive) as file:
        file.extractall(archive.parent)
    source = SOURCES["omniglot"]().build_source(tmp_path)
    source._check_files()
    (archive.parent / "images_background" / "Latin" / "character01" / "1.png").unlink()

    def offline(*args, **options):
        raise OSError("no route to host")

    monkeypatch.setattr("torchvision.datasets.omniglot.download_and_extract_archive", offline)
    monkeypatch.setitem(datasets.Omniglot.zips_md5, "images_background", _md5(archive))
    with pytest.raises(UserError, match=f"{archive}: expected its 3 drawings in .*, found 2"):
        source.prepare()
    assert archive.exists()


def _epoch(module, epoch, batches=2):
    loader = module.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return torch.cat([group[0].images for group, _ in zip(loader, range(batches), strict=False)])


def test_splits_follow_the_order_of_the_file(mnist, data_dir):
    module = mnist(binarization="none")
    training = _load("mnist", data_dir, True)
    assert torch.equal(module.images("train"), training[:50_000])
    assert torch.equal(module.images("val"), training[50_000:])
    assert torch.equal(module.images("test"), _load("mnist", data_dir, False))
    assert module.steps_per_epoch() == 50_000 // 128


def test_validation_zero_trains_on_all(mnist):
    module = mnist(binarization="none", validation=0)
    assert len(module.images("train")) == 60_000
    assert torch.equal(module.images("val"), module.images("test"))


def test_dynamic_binarization_draws_anew_and_repeats_by_seed(mnist):
    module = mnist(binarization="dynamic", seed=5)
    first, again = _epoch(module, 0), _epoch(mnist(binarization="dynamic", seed=5), 0)
    assert torch.equal(first, again)
    assert set(first.unique().tolist()) == {0.0, 1.0}
    assert not torch.equal(first, _epoch(module, 1))
    sampler = BatchOrder(256, 128, shuffle=False)
    loader = ImageLoader(module.images("train")[:256], sampler, dynamic=True)
    one = torch.cat([batch.images for batch in loader])
    sampler.set_epoch(1)
    two = torch.cat([batch.images for batch in loader])
    assert not torch.equal(one, two), "the same images in the same order should be drawn anew"
    assert torch.equal(one == 1, one > 0)


@pytest.mark.parametrize("binarization", ["dynamic", "fixed"])
def test_evaluation_images_are_the_same_in_every_run(mnist, binarization):
    first, second = (
        mnist(binarization=binarization, seed=1),
        mnist(binarization=binarization, seed=2),
    )
    for split in ("val", "test"):
        assert torch.equal(first.images(split), second.images(split))
        assert set(first.images(split).unique().tolist()) == {0, 255}


def test_dynamic_and_fixed_share_their_evaluation_images(mnist):
    dynamic, fixed = mnist(binarization="dynamic"), mnist(binarization="fixed")
    assert torch.equal(dynamic.images("test"), fixed.images("test"))
    assert not torch.equal(dynamic.images("train"), fixed.images("train"))


def test_fixed_binarization_never_changes(mnist):
    module = mnist(binarization="fixed")
    [batch] = next(iter(module.train_dataloader()))
    assert torch.equal(batch.images, to_unit(module.images("train")[batch.indices]))


def test_grey_pixels_are_soft_targets(mnist):
    [batch] = next(iter(mnist(binarization="none").train_dataloader()))
    assert len(batch.images.unique()) > 100
    assert 0 <= batch.images.min() < batch.images.max() <= 1


def test_pixel_mean(mnist):
    module = mnist(binarization="none")
    expected = module.images("train").double().mean(0) / 255
    assert torch.allclose(module.pixel_mean().double(), expected, atol=1e-5)


def test_published_binarization_is_read(tmp_path, mnist):
    source = SOURCES["mnist"]().build_source(tmp_path)
    assert source.read_binarized("test") is None
    bits = np.random.default_rng(0).integers(0, 2, (3, 784))
    rows = "\n".join(" ".join(map(str, row)) for row in bits)
    (tmp_path / "binarized_mnist_test.amat").write_text(rows + "\n")
    images = source.read_binarized("test")
    assert torch.equal(images.flatten(1), torch.from_numpy(bits).to(torch.uint8) * 255)
    module = mnist(root=tmp_path, binarization="fixed")
    with pytest.raises(UserError, match="expected 10000 images .*found 3"):
        module.images("test")
    for broken in ("0 1 2", "0 1", "hello", ""):
        (tmp_path / "binarized_mnist_test.amat").write_text(broken)
        with pytest.raises(UserError, match="expected rows of 784 digits 0 or 1"):
            source.read_binarized("test")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation": 60_000}, "data.validation: expected fewer than the 60000"),
        ({"batch_size": 50_001}, "data.batch_size: expected at most the 50000"),
    ],
)
def test_impossible_options(mnist, options, message):
    with pytest.raises(UserError, match=message):
        mnist(**options).steps_per_epoch()


@pytest.mark.parametrize("size", [32, [20, 36]])
def test_images_are_resized_to_any_size(data_dir, size):
    height, width = [size] * 2 if isinstance(size, int) else size
    options = SOURCES["mnist"](size=size)
    assert options.image_shape == (1, height, width)
    images = options.build_source(data_dir).load(train=False)
    assert images.shape == (10_000, 1, height, width)
    # Brightness stays what it was.
    usual = _load("mnist", data_dir, False).float().mean()
    assert images.float().mean().item() == pytest.approx(usual.item(), rel=0.02)
