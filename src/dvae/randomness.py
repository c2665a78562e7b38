"""Random numbers keyed by their purpose, independent of what was drawn before."""

from hashlib import blake2b

import torch
from torch import Generator, Tensor

__all__ = ["ImageStreams", "keyed_generator", "keyed_seed"]


def keyed_seed(purpose: str, *keys: int) -> int:
    """A 63-bit seed: a hash of what the numbers are for, and of integer keys.

    Args:
        purpose: Keeps streams apart that have the same keys, such as "order" and "noise".
        *keys: Seed, epoch, step, ….

    Example:
        >>> keyed_seed("order", 0, 1) == keyed_seed("order", 0, 1, 0)
        False
    """
    text = f"{purpose} {keys}".encode()
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "little") >> 1


def keyed_generator(purpose: str, *keys: int, device: torch.device | str = "cpu") -> Generator:
    """A generator seeded with `keyed_seed(purpose, *keys)`."""
    return Generator(device).manual_seed(keyed_seed(purpose, *keys))


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
        self._generators = [keyed_generator("image", seed, i) for i in index.tolist()]
        self._device = index.device

    def uniform(self, num_samples: int, *shape: int) -> Tensor:
        """Draws the next uniform numbers in [0, 1) of each stream, (num_samples, B, *shape).

        They are drawn on the CPU, where a stream does not depend on how many numbers each call
        draws.
        """
        draws = [torch.rand(num_samples, *shape, generator=g) for g in self._generators]
        return torch.stack(draws, dim=1).to(self._device)
