"""Sharing a process with another program, or job, that uses Hydra."""

from collections.abc import Iterator
from contextlib import contextmanager

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobRuntime
from hydra.version import VersionBase

__all__ = ["own_hydra"]


@contextmanager
def own_hydra() -> Iterator[None]:
    """Hides the Hydra of the running job, or of the user's own program, and restores it."""
    kinds = (GlobalHydra, HydraConfig, JobRuntime, VersionBase)
    held = {kind: Singleton._instances.pop(kind, None) for kind in kinds}
    try:
        yield
    finally:
        for kind, instance in held.items():
            Singleton._instances.pop(kind, None)
            if instance is not None:
                Singleton._instances[kind] = instance
