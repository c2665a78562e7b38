"""How a loaded model is used in Python; see `dvae.load`."""

from __future__ import annotations

from typing import Any, NoReturn

from torch import Generator, Tensor

from dvae.errors import UserError

__all__ = ["Inference"]


class Inference:
    """Methods that a model of the task `vae` has; those of other tasks refuse them in one line.

    Attributes:
        config: The configuration that the model was trained with.
    """

    config: dict[str, Any]

    def encode(self, images: Tensor) -> Tensor:
        """Codes of images; see `dvae.tasks.vae.inference.VAEInference.encode`."""
        self._refuse("encode")

    def decode(self, codes: Tensor) -> Tensor:
        """Images of codes; see `dvae.tasks.vae.inference.VAEInference.decode`."""
        self._refuse("decode")

    def sample(self, num_images: int, generator: Generator | None = None) -> Tensor:
        """Images from the prior; see `dvae.tasks.vae.inference.VAEInference.sample`."""
        self._refuse("sample")

    def reconstruct(self, images: Tensor) -> Tensor:
        """Images from their codes; see `dvae.tasks.vae.inference.VAEInference.reconstruct`."""
        self._refuse("reconstruct")

    @classmethod
    def load_from_checkpoint(cls, *args: Any, **kwargs: Any) -> NoReturn:
        """Lightning's way to load, which would need the model's networks as arguments.

        Raises:
            UserError: Always; it names `dvae.load`.
        """
        raise UserError(
            f"{cls.__name__}.load_from_checkpoint: expected dvae.load(path), which builds the "
            "model that the checkpoint describes, found Lightning's method"
        )

    def _refuse(self, method: str) -> NoReturn:
        task = self.config.get("task")
        raise UserError(f"{method}: expected a model of task=vae, found one of task={task}")
