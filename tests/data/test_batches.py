"""Binarization, the order of batches and their groups."""

import mmap

import pytest
import torch

from dvae.data import cache
from dvae.data.binarize import binarize, redraw, to_unit
from dvae.data.cache import map_images, prefetch
from dvae.data.loader import BatchGroups, BatchOrder, ImageLoader


@pytest.mark.parametrize("draw", [lambda *args: to_unit(binarize(*args)), redraw])
def test_binarization_has_the_right_frequencies(draw):
    values = torch.arange(256, dtype=torch.uint8).repeat(20_000, 1)
    drawn = draw(values, torch.Generator().manual_seed(0))
    assert set(drawn.unique().tolist()) == {0.0, 1.0}
    p = torch.arange(256).double() / 255
    frequency = drawn.double().mean(0)
    assert frequency[0] == 0
    assert frequency[255] == 1
    z = (frequency - p)[1:-1] / (p * (1 - p) / 20_000).sqrt()[1:-1]
    assert z.abs().max() < 4.8  # 254 frequencies: a false alarm once in 2,500 seeds
    biased = (frequency * 0.98 - p)[1:-1] / (p * (1 - p) / 20_000).sqrt()[1:-1]
    assert biased.abs().max() > 4.8


def _images(n):
    return torch.arange(n, dtype=torch.uint8).reshape(n, 1, 1, 1).expand(n, 1, 28, 28)


def test_order_is_a_function_of_seed_and_epoch():
    def order(seed, epoch):
        sampler = BatchOrder(20, 4, seed=seed, shuffle=True)
        sampler.set_epoch(epoch)
        return torch.cat(list(sampler)).tolist()

    assert order(0, 3) == order(0, 3)
    assert order(0, 3) != order(0, 4)
    assert order(0, 3) != order(1, 3)
    assert sorted(order(0, 3)) == list(range(20))


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_processes_share_an_epoch_without_overlap(shuffle, world_size):
    samplers = [
        BatchOrder(20, 3, shuffle=shuffle, rank=r, world_size=world_size) for r in range(world_size)
    ]
    batches = [list(sampler) for sampler in samplers]
    assert [len(b) for b in batches] == [len(s) for s in samplers]
    seen = torch.cat([torch.cat(b) for b in batches]).tolist()
    assert len(seen) == len(set(seen))
    if shuffle:
        assert len({len(b) for b in batches}) == 1
        assert {len(i) for b in batches for i in b} == {3}
    else:
        assert sorted(seen) == list(range(20))


@pytest.mark.parametrize(
    ("limit", "expected"), [(1.0, 5), (0.5, 2), (0.01, 1), (3, 3), (100, 5), (1, 1)]
)
def test_an_epoch_can_be_limited(limit, expected):
    order = BatchOrder(20, 4, limit=limit)
    assert len(order) == len(list(order)) == expected


@pytest.mark.parametrize("size", [1, 2, 5, 7])
def test_groups_hold_the_same_batches(size):
    loader = ImageLoader(_images(20), BatchOrder(20, 4, shuffle=True), dynamic=True)
    groups = BatchGroups(loader, size)
    lists = list(groups)
    assert len(lists) == len(groups) == -(-5 // size)
    assert {len(group) for group in lists[:-1]} <= {size}
    batches = [batch for group in lists for batch in group]
    assert groups.num_batches == len(batches) == 5
    for one, other in zip(batches, loader, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.indices, other.indices)


def test_loader_pairs_images_with_their_indices():
    loader = ImageLoader(_images(10), BatchOrder(10, 4, shuffle=True))
    for images, indices in loader:
        assert torch.equal((images[:, 0, 0, 0] * 255).round().long(), indices)
        assert images.dtype == torch.float32


def test_a_loader_that_reads_ahead_gives_the_same_batches():
    order = BatchOrder(20, 4, shuffle=True)
    for dynamic in (True, False):
        usual = ImageLoader(_images(20).contiguous(), order, dynamic=dynamic)
        ahead = ImageLoader(_images(20).contiguous(), order, dynamic=dynamic, read_ahead=True)
        for start in (0, 3):
            pairs = list(zip(usual.batches(start), ahead.batches(start), strict=True))
            assert len(pairs) == 5 - start
            for one, other in pairs:
                assert torch.equal(one.images, other.images)
                assert torch.equal(one.indices, other.indices)


def test_an_error_in_the_thread_is_raised():
    loader = ImageLoader(_images(3).contiguous(), BatchOrder(20, 4), read_ahead=True)
    with pytest.raises(IndexError):
        list(loader)


def test_prefetching_covers_the_images_with_whole_pages(tmp_path, monkeypatch):
    path = tmp_path / "images"
    path.write_bytes(bytes(100 * 5000))
    images = map_images(path, (100, 1, 50, 100))[10:]
    # The system accepts the ranges.
    calls = []
    usual = cache._madvise
    monkeypatch.setattr(cache, "_madvise", lambda *range: calls.append((*range, usual(*range))))
    prefetch(images, [0, 7, 89])
    for index, (page, length, _, result) in zip([0, 7, 89], calls, strict=True):
        assert result == 0
        assert page % mmap.PAGESIZE == 0
        first = images[index].data_ptr()
        assert page <= first < first + 5000 == page + length


@pytest.mark.cuda
@pytest.mark.parametrize("dynamic", [True, False])
def test_batches_on_a_gpu_do_not_depend_on_where_the_images_are(dynamic):
    gpu, order = torch.device("cuda"), BatchOrder(20, 4, shuffle=True)
    images = _images(20).contiguous()
    there = ImageLoader(images.to(gpu), order, dynamic=dynamic)
    here = ImageLoader(images, order, dynamic=dynamic, device=gpu, read_ahead=True)
    for one, other in zip(there, here, strict=True):
        assert one.images.device == other.images.device
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.indices, other.indices)
