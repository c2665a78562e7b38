"""Random numbers keyed by their purpose, independent of what was drawn before."""

import numpy as np
import torch
from torch import Generator, Tensor

__all__ = ["ImageStreams", "keyed_generator", "keyed_seed"]


def keyed_seed(*keys: int) -> int:
    """A 63-bit seed: a hash of non-negative integer keys."""
    return int(np.random.SeedSequence(keys).generate_state(1, np.uint64)[0] >> np.uint64(1))


def keyed_generator(*keys: int, device: torch.device | str = "cpu") -> Generator:
    """A generator seeded with `keyed_seed(*keys)`."""
    return Generator(device).manual_seed(keyed_seed(*keys))


class ImageStreams:
    """One stream of uniform numbers per image, keyed by a seed and the image's index.

    An image gets the same numbers in every batch, on every device and with any number of
    processes, so that estimated metrics repeat exactly.

    Args:
        index: Indices of the images in their split, (B,).
        seed: Seed of the evaluation, at least 0.

    Example:
        >>> alone = ImageStreams(torch.tensor([7]), seed=0).uniform(2, 3)
        >>> among = ImageStreams(torch.tensor([5, 7]), seed=0).uniform(2, 3)
        >>> torch.equal(alone[:, 0], among[:, 1])
        True
    """

    def __init__(self, index: Tensor, seed: int) -> None:
        self._generators = [keyed_generator(seed, i) for i in index.tolist()]
        self._device = index.device

    def uniform(self, num_samples: int, *shape: int) -> Tensor:
        """Draws the next uniform numbers in [0, 1) of each stream, (num_samples, B, *shape).

        They are drawn on the CPU, where a stream does not depend on how many numbers each call
        draws.
        """
        draws = [torch.rand(num_samples, *shape, generator=g) for g in self._generators]
        return torch.stack(draws, dim=1).to(self._device)
