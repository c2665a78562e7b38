"""Loading a VAE from a checkpoint."""

from pathlib import Path

from dvae.errors import UserError
from dvae.tasks.loading import load_module
from dvae.tasks.vae.config import StoredVAEConfig
from dvae.tasks.vae.module import VAEModule

__all__ = ["load_vae"]


def load_vae(path: str | Path) -> tuple[VAEModule, StoredVAEConfig]:
    """Loads a VAE; see `dvae.tasks.loading.load_module`.

    Raises:
        UserError: If the checkpoint cannot be read, or is one of another task.
    """
    module, trained = load_module(path)
    if not isinstance(module, VAEModule) or not isinstance(trained, StoredVAEConfig):
        raise UserError(
            f"checkpoint: expected a checkpoint of task=vae, found task={trained.task} in {path}"
        )
    return module, trained
