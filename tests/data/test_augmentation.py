"""Random shifts of training images."""

import pytest
import torch

from dvae.data.augmentation import shift
from dvae.data.loader import BatchOrder, ImageLoader


def _images(count, channels=2):
    generator = torch.Generator().manual_seed(0)
    shape = (count, channels, 5, 7)
    return torch.randint(256, shape, dtype=torch.uint8, generator=generator)


def test_images_are_moved_and_their_edges_repeated():
    images = _images(400)
    moved = shift(images, 2, torch.Generator().manual_seed(1))
    padded = torch.nn.functional.pad(images.float(), (2, 2, 2, 2), mode="replicate").byte()
    found = torch.zeros(5, 5, dtype=torch.int64)
    for image, wide in zip(moved, padded, strict=True):
        windows = wide.unfold(1, 5, 1).unfold(2, 7, 1)  # (C, 5, 5, 5, 7)
        same = (windows == image[:, None, None]).flatten(3).all(-1).all(0)
        assert same.sum() == 1
        found += same
    # Each of the 25 moves has probability 1/25: 16 of 400 images, with a standard error of 3.9.
    assert (found - 16).abs().max() < 4 * 3.9


@pytest.mark.parametrize("dynamic", [False, True])
def test_shifts_are_a_function_of_seed_and_epoch(dynamic):
    images = _images(40)

    def batches(epoch, most=1, start=0):
        sampler = BatchOrder(40, 8, seed=3, shuffle=True)
        sampler.set_epoch(epoch)
        loader = ImageLoader(images, sampler, dynamic=dynamic, shift=most)
        return [batch.images for batch in loader.batches(start)]

    first = batches(0)
    assert all(torch.equal(*pair) for pair in zip(first, batches(0), strict=True))
    assert all(torch.equal(*pair) for pair in zip(first[2:], batches(0, start=2), strict=True))
    assert not torch.equal(first[0], batches(1)[0])
    assert not torch.equal(first[0], batches(0, most=0)[0])
