"""A folder of images: which files are found, their splits, and what is prepared from them."""

import json
import multiprocessing
import os
import random
import shutil
import time
from collections import Counter

import numpy as np
import pytest
import torch
from omegaconf.errors import MissingMandatoryValue
from PIL import Image

from dvae.commands.checking import check
from dvae.commands.cli import compose
from dvae.commands.evaluate import evaluate
from dvae.commands.sample import sample
from dvae.commands.train import train
from dvae.data.sources.folder import place
from dvae.data.sources.folder_options import FolderOptions
from dvae.errors import UserError
from dvae.runs.arguments import quote_paths
from dvae.tasks.options import EvaluateConfig, SampleConfig
from dvae.training.config import RunConfig

# Forking avoids the time of imports.
processes = multiprocessing.get_context("fork")


def _write(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (value % 256, value // 256, 7)).save(path)


def _fill(root, count, below=""):
    for number in range(count):
        _write(root / below / f"{number}.png", number)


def _options(root, **others):
    return FolderOptions(root=str(root), size=8, **others)


def _module(root, data_dir, **others):
    return _options(root, **others).build(data_dir, 0)


def _values(images):
    """The numbers that `_write` has written into images."""
    return (images[:, 0, 0, 0].long() + 256 * images[:, 1, 0, 0].long()).tolist()


def _prepared(data_dir):
    return [path for path in (data_dir / "prepared").iterdir() if path.name != ".lock"]


NAMES = [
    "plain.png",
    "with space, comma = and 'quotes'.png",
    "[brackets] {braces} $dollar.png",
    "Ünïcödé.png",
    "фото/снимок.png",
    "写真/画像.png",
    "صور/صورة.png",
    "תמונות/תמונה.png",
    "εικόνες/εικόνα.png",
    "चित्र/छवि.png",
    "emoji 🎨/🖼.png",
    "deep/a/b/c/d/e/f.png",
    "UPPER.PNG",
    os.fsdecode(b"not \xff text.png"),
]


def test_files_are_found_at_any_depth_and_under_any_name(tmp_path):
    root = tmp_path / "a = b, ц"
    for number, name in enumerate(NAMES):
        _write(root / name, number)
    for other in ("notes.txt", "no_ending", ".hidden.png", ".cache/thumbnail.png"):
        _write(root / "other" / "image.png", 1000)
        shutil.copy(root / NAMES[0], root / "other" / "copy.png")
        path = root / other
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"not an image")
    shutil.rmtree(root / "other")
    (root / "deep" / "circle").symlink_to(root)
    module = _module(root, tmp_path / "data", validation=0.3, testing=0.3)
    found = {}
    for split in ("train", "val", "test"):
        names = module.source.names(split)
        found |= dict(zip(names, _values(module.images(split)), strict=True))
    assert found == {name: number for number, name in enumerate(NAMES)}


def test_links_to_files_and_folders_are_followed(tmp_path):
    _fill(tmp_path / "elsewhere", 20)
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(tmp_path / "elsewhere")
    (root / "one.png").symlink_to(tmp_path / "elsewhere" / "3.png")
    module = _module(root, tmp_path / "data")
    names = [name for split in ("train", "val", "test") for name in module.source.names(split)]
    assert sorted(names) == sorted(["one.png", *(f"link/{i}.png" for i in range(20))])


def _splits(root, data_dir, **shares):
    module = _module(root, data_dir, **shares)
    return {split: set(module.source.names(split)) for split in ("train", "val", "test")}


def test_adding_files_moves_none(tmp_path):
    root = tmp_path / "root"
    _fill(root, 300)
    before = _splits(root, tmp_path / "data")
    sizes = {split: len(names) for split, names in before.items()}
    # A tenth of 300: 30 with a standard deviation of 5.2; the names are fixed.
    assert sum(sizes.values()) == 300
    assert 15 < sizes["val"] < 45
    assert 15 < sizes["test"] < 45
    _fill(root, 100, "more")
    after = _splits(root, tmp_path / "data")
    assert all(before[split] < after[split] for split in before)


def test_shares_do_not_disturb_each_other_and_need_no_second_preparation(tmp_path):
    root, data_dir = tmp_path / "root", tmp_path / "data"
    _fill(root, 200)
    usual = _splits(root, data_dir)
    more = _splits(root, data_dir, validation=0.3)
    assert more["test"] == usual["test"]
    assert more["val"] > usual["val"]
    assert _splits(root, data_dir, testing=0.3)["val"] == usual["val"]
    assert len(_prepared(data_dir)) == 1


def test_validation_zero_trains_on_all_but_the_test_images(tmp_path):
    _fill(tmp_path / "root", 100)
    module = _module(tmp_path / "root", tmp_path / "data", validation=0.0)
    assert not module.validates
    assert len(module.images("train")) + len(module.images("test")) == 100
    assert torch.equal(module.images("val"), module.images("test"))


def test_places_are_uniform():
    """A share of 10,000 names, in standard errors of 0.0046 at most; a false alarm: 1 in 10^4."""
    places = np.array([place(f"class/{number}.jpg") for number in range(10_000)])
    assert ((places >= 0) & (places < 1)).all()
    for share in (0.1, 0.5, 0.9):
        error = ((places < share).mean() - share) / (share * (1 - share) / 10_000) ** 0.5
        assert abs(error) < 4.3


@pytest.mark.parametrize("validation", ["val", "valid", "validation"])
def test_folders_are_splits(tmp_path, validation):
    root = tmp_path / "root"
    for number, name in enumerate(["train/a/1.png", f"{validation}/a/1.png", "test/a/1.png"]):
        _write(root / name, number)
    _write(root / "other" / "1.png", 9)
    module = _module(root, tmp_path / "data")
    for number, split in enumerate(("train", "val", "test")):
        assert _values(module.images(split)) == [number]


def test_missing_split_folders_are_held_out_of_the_training_images(tmp_path):
    data_dir = tmp_path / "data"
    _fill(tmp_path / "one" / "train", 100)
    _fill(tmp_path / "one" / "test", 5)
    splits = _splits(tmp_path / "one", data_dir)
    assert splits["test"] == {f"test/{number}.png" for number in range(5)}
    assert splits["val"]
    assert len(splits["train"] | splits["val"]) == 100
    # Without train/, all other folders are for training.
    _fill(tmp_path / "two" / "cats", 100)
    _fill(tmp_path / "two" / "val", 5)
    splits = _splits(tmp_path / "two", data_dir)
    assert splits["val"] == {f"val/{number}.png" for number in range(5)}
    assert splits["test"]
    assert len(splits["train"] | splits["test"]) == 100


def _break(root, count=40):
    """Broken files of several kinds."""
    whole = {}
    for ending in ("png", "jpg", "gif", "bmp", "webp", "tiff"):
        path = root / f"whole.{ending}"
        noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)
        Image.fromarray(noise).save(path)
        whole[ending] = path.read_bytes()
        path.unlink()
    for number in range(count):
        ending = list(whole)[number % len(whole)]
        path = root / f"broken {number}.{ending}"
        content = whole[ending]
        match number // len(whole):
            case 0:
                path.write_bytes(b"")
            case 1 | 2 | 3:
                path.write_bytes(content[: len(content) // 2])
            case 4:
                path.write_bytes(b"<html>not found</html>")
            case 5:
                path.symlink_to("nowhere")
            case _:
                path.write_bytes(bytes(len(content)))


def test_unreadable_files_are_named_counted_and_left_out(tmp_path, capsys):
    root, data_dir = tmp_path / "root", tmp_path / "data"
    _fill(root, 300)
    _break(root)
    module = _module(root, data_dir, max_broken=0.2)
    values = [v for split in ("train", "val", "test") for v in _values(module.images(split))]
    assert sorted(values) == list(range(300))
    shown = capsys.readouterr().err
    assert "Left out 40 of 340 files, which cannot be read:" in shown
    names = {path.name for path in root.glob("broken*")}
    assert len(names) == 40
    assert all(f"{name}: " in shown for name in names)
    [folder] = _prepared(data_dir)
    assert json.loads((folder / "broken.json").read_text()).keys() == names
    # Fewer are allowed later: what is prepared already is refused too.
    with pytest.raises(UserError, match=r"max_broken=0.1 .* found 40 such files among 340"):
        _module(root, data_dir, max_broken=0.1).setup()


def test_too_many_unreadable_files_end_in_one_line(tmp_path):
    root, data_dir = tmp_path / "root", tmp_path / "data"
    _fill(root, 100)
    _break(root)
    with pytest.raises(UserError, match=r"data.root: .*data.max_broken=0.05 .*broken \d") as caught:
        _module(root, data_dir).setup()
    assert "\n" not in str(caught.value)
    assert not _prepared(data_dir)
    for path in root.glob("[0-9]*.png"):
        path.unlink()
    with pytest.raises(UserError, match="found 40 such files among 40"):
        _module(root, data_dir, max_broken=0.99).setup()


def test_other_mistakes_end_in_one_line(tmp_path, monkeypatch):
    root, data_dir = tmp_path / "root", tmp_path / "data"
    cases = {"expected a folder, found nothing at": root}
    (tmp_path / "file").write_text("")
    cases["expected a folder, found a file at"] = tmp_path / "file"
    (tmp_path / "empty").mkdir()
    cases["expected files with the endings .bmp .*, found none"] = tmp_path / "empty"
    _fill(tmp_path / "both" / "val", 1)
    _fill(tmp_path / "both" / "valid", 1)
    cases["expected one folder of validation images, found val and valid"] = tmp_path / "both"
    _fill(tmp_path / "few", 2)
    cases["expected images for each split, found "] = tmp_path / "few"
    for message, path in cases.items():
        with pytest.raises(UserError, match=f"data.root: {message}"):
            _module(path, data_dir).setup()
    usage = shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    _fill(root, 10)
    with pytest.raises(UserError, match="paths.data_dir: expected 0.0 GB of free space for 10"):
        _module(root, data_dir).setup()


def test_a_second_start_reads_no_image(tmp_path, monkeypatch):
    root, data_dir = tmp_path / "root", tmp_path / "data"
    _fill(root, 100)
    first = _module(root, data_dir).images("train")

    def refuse(*arguments):
        raise AssertionError("prepared again")

    monkeypatch.setattr("dvae.data.sources.folder.prepare_images", refuse)
    assert torch.equal(_module(root, data_dir).images("train"), first)


@pytest.mark.parametrize("change", ["option", "added", "removed", "renamed", "content", "time"])
def test_changes_are_prepared_again(tmp_path, change):
    root, data_dir = tmp_path / "root", tmp_path / "data"
    _fill(root, 60)
    _module(root, data_dir).setup()
    options = {}
    if change == "option":
        options = {"fit": "pad", "background": "#00ff00", "channels": 1}
    elif change == "added":
        _write(root / "new.png", 60)
    elif change == "removed":
        (root / "5.png").unlink()
    elif change == "renamed":
        (root / "5.png").rename(root / "five.png")
    elif change == "content":
        _write(root / "5.png", 99)
    else:
        os.utime(root / "5.png", (1, 1))
    module = _module(root, data_dir, **options)
    module.setup()
    assert len(_prepared(data_dir)) == 2
    if change == "content":
        values = [v for split in ("train", "val", "test") for v in _values(module.images(split))]
        assert 99 in values
        assert 5 not in values


def test_preparation_leaves_random_numbers_alone(tmp_path):
    """A run gives the same numbers whether or not its images are prepared already."""
    _fill(tmp_path / "root", 200)
    torch.manual_seed(0)
    _module(tmp_path / "root", tmp_path / "data").setup()
    assert torch.equal(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(0)))


def _prepare(root, data_dir, log=None):
    from dvae.data.sources import folder

    torch.set_num_threads(1)
    if log is not None:
        prepare = folder.prepare_images

        def logged(*arguments):
            with log.open("a") as file:
                file.write("prepared\n")
            prepare(*arguments)

        folder.prepare_images = logged
    _module(root, data_dir).setup()


def test_processes_that_start_together_prepare_once(tmp_path):
    root, data_dir, log = tmp_path / "root", tmp_path / "data", tmp_path / "log"
    _fill(root, 400)
    started = [processes.Process(target=_prepare, args=(root, data_dir, log)) for _ in range(3)]
    for process in started:
        process.start()
    for process in started:
        process.join(60)
        assert process.exitcode == 0
    assert log.read_text() == "prepared\n"
    assert len(_prepared(data_dir)) == 1


def test_a_killed_preparation_leaves_nothing_half_made(tmp_path):
    root, data_dir = tmp_path / "root", tmp_path / "data"
    _fill(root, 500)
    start = time.monotonic()
    expected = _module(root, tmp_path / "undisturbed").images("train")
    whole = time.monotonic() - start
    draw = random.Random(0)
    outcomes = Counter()
    for _ in range(10):
        process = processes.Process(target=_prepare, args=(root, data_dir))
        process.start()
        while process.is_alive() and not list(data_dir.glob("prepared/.*.part")):
            time.sleep(0.001)
        time.sleep(draw.uniform(0, whole))
        process.kill()
        process.join()
        for folder in _prepared(data_dir):
            if folder.name.endswith(".part"):
                outcomes["half-made"] += 1
            else:
                # What has its final name is complete.
                outcomes["complete"] += 1
                assert torch.equal(_module(root, data_dir).images("train"), expected)
                shutil.rmtree(folder)
    assert outcomes["half-made"], "no process was killed in the middle"
    # The next preparation is not held up, and cleans up.
    start = time.monotonic()
    assert torch.equal(_module(root, data_dir).images("train"), expected)
    assert time.monotonic() - start < whole + 2
    [folder] = _prepared(data_dir)
    assert sorted(path.name for path in folder.iterdir()) == ["broken.json", "images.uint8"]


def test_removing_the_prepared_images_starts_afresh(tmp_path):
    root, data_dir = tmp_path / "root", tmp_path / "data"
    _fill(root, 60)
    module = _module(root, data_dir)
    before = module.images("train")
    shutil.rmtree(data_dir / "prepared")
    # What is in use stays readable.
    assert torch.equal(_module(root, data_dir).images("train"), before)


# Batches.


def test_batches_hold_the_images_of_their_indices(tmp_path):
    _fill(tmp_path / "root", 300)
    module = _module(tmp_path / "root", tmp_path / "data", batch_size=16, eval_batch_size=50)
    loader, images = module.train_dataloader(), module.images("train")
    seen = [batch for [batch] in loader]
    assert len(seen) == module.steps_per_epoch() == len(images) // 16
    for batch in seen:
        assert torch.equal(batch.images, images[batch.indices].float() / 255)
    indices = torch.cat([batch.indices for batch in seen])
    assert len(indices.unique()) == len(indices)
    validated = torch.cat([batch.images for batch in module.val_dataloader()])
    assert torch.equal(validated, module.images("val").float() / 255)


@pytest.mark.parametrize("binarization", ["none", "dynamic", "fixed"])
def test_mapped_images_give_the_same_batches_as_images_in_memory(tmp_path, binarization):
    """The same order, binarization and position in an epoch, with a thread that reads ahead."""
    _fill(tmp_path / "root", 700)
    options = {"binarization": binarization, "batch_size": 16}
    mapped = _module(tmp_path / "root", tmp_path / "data", **options)
    inside = _module(tmp_path / "root", tmp_path / "data", **options)
    inside.source.mapped = False
    for split in ("val", "test"):
        assert torch.equal(mapped.images(split), inside.images(split))
    for epoch in range(2):
        loaders = [module.train_dataloader() for module in (mapped, inside)]
        for loader in loaders:
            loader.sampler.set_epoch(epoch)
            state = {"done": 3, "size": 1, "batches": loader.num_batches}
            loader.load_state_dict(state)
        for [one], [other] in zip(*loaders, strict=True):
            assert torch.equal(one.images, other.images)
            assert torch.equal(one.indices, other.indices)
    assert torch.allclose(mapped.pixel_mean(), inside.pixel_mean(), atol=1e-6)


def test_an_epoch_that_is_left_early_ends_its_thread(tmp_path):
    import threading

    _fill(tmp_path / "root", 300)
    module = _module(tmp_path / "root", tmp_path / "data", batch_size=8)
    batches = iter(module.train_dataloader())
    before = set(threading.enumerate())
    next(batches)
    assert set(threading.enumerate()) - before
    batches.close()
    assert not set(threading.enumerate()) - before


# Runs.


@pytest.fixture(scope="module")
def bars(tmp_path_factory):
    """A folder of 300 grey pictures of 28 × 28 with a bright bar at a random place."""
    root = tmp_path_factory.mktemp("bars") / "рисунки = 1"
    root.mkdir()
    draw = np.random.default_rng(0)
    for number in range(300):
        picture = np.zeros((28, 28), np.uint8)
        picture[:, draw.integers(4, 24)] = 255
        Image.fromarray(picture).save(root / f"{number}.png")
    return root


def test_a_folder_trains_and_is_evaluated_and_sampled(bars, make_config, tmp_path):
    run, data = tmp_path / "run", tmp_path / "data"
    [root] = quote_paths([f"data.root={bars}"])
    options = ["data.channels=1", "data.size=28", "debug=fast", f"paths.data_dir={data}"]
    train(make_config("data=folder", root, *options))
    own = [f"checkpoint={run}/checkpoints/best.ckpt", f"data_dir={data}", "device=cpu"]

    def repeat(*overrides):
        quick = ["num_samples=2", "progress_bar=false", f"output={tmp_path}/metrics.json"]
        return evaluate(check(EvaluateConfig, compose("evaluate", [*own, *quick, *overrides])))

    before = repeat()
    assert np.isfinite(before["test/elbo"])
    # The folder may have moved: the splits depend on names below it only.
    moved = shutil.copytree(bars, tmp_path / "moved")
    assert repeat(f"data.root={moved}") == before
    with pytest.raises(UserError, match="data.root: expected a folder, found nothing at .*nowhere"):
        repeat("data.root=nowhere")
    with pytest.raises(UserError, match="data.train: no such key with data.name=folder"):
        repeat("data.train=x.npy")
    what = ["what=reconstructions", "num_images=4", f"output_dir={tmp_path}/samples"]
    sample(check(SampleConfig, compose("sample", [*own, *what])))
    assert (tmp_path / "samples" / "reconstructions.png").exists()


def test_a_folder_must_be_given():
    """The script reports it in one line; see `dvae.commands.cli`."""
    with pytest.raises(MissingMandatoryValue):
        compose("train", ["data=folder", "paths.output_dir=run"])


@pytest.mark.parametrize("name", ["рисунки", "a b", "x=1,2", "2026", "plain/path.d", "#1"])
def test_any_path_can_be_given(name):
    given = [*quote_paths([f"data.root={name}"]), "data=folder", "paths.output_dir=run"]
    assert compose("train", given)["data"]["root"] == name


def test_options_are_checked(tmp_path):
    own = [
        "data=folder",
        "data.root=pictures",
        "likelihood=discretized_logistic",
        "paths.output_dir=run",
        "paths.data_dir=data",
    ]
    for wrong, message in {
        "data.background=blurple": "data.background: expected a colour, such as white or '#ffffff'",
        "data.fit=zoom": "data.fit: expected one of 'crop', 'pad' or 'stretch', found 'zoom'",
        "data.channels=2": "data.channels: expected one of 1 or 3, found 2",
        "data.validation=1000": "data.validation: expected less than 1, found 1000",
        "data.testing=0.0": "data.testing: expected greater than 0",
        "data.validation=0.95": "data.validation, data.testing: expected shares that leave",
        "data.max_broken=1.0": "data.max_broken: expected less than 1",
        "data.size=0": "data.size",
    }.items():
        with pytest.raises(UserError, match=message):
            check(RunConfig, compose("train", [*own, wrong]))
    config = check(RunConfig, compose("train", [*own, "data.size=[16,24]"]))
    assert config.data.image_shape == (3, 16, 24)
    assert config.data.root == f"{os.getcwd()}/pictures"
