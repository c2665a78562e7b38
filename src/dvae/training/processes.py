"""Support for one run in several processes."""

import os

import pytorch_lightning as pl
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from torch import distributed

from dvae.errors import UserError
from dvae.training.config import RunConfig

__all__ = ["SharedBuffers", "check_processes", "runs_in_parallel"]


class SharedBuffers(pl.Callback):
    """Copies the first process's buffers to all before validation, so that all score one model.

    Buffers differ, because batch normalization keeps running statistics of the part of each batch
    that its process sees.
    """

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Broadcasts the buffers, those of averaged weights if there are any."""
        for buffer in pl_module.buffers():
            distributed.broadcast(buffer, src=0)


def check_processes(config: RunConfig) -> None:
    """Checks how the processes of a run are started.

    Raises:
        UserError: If a run of a sweep would start several processes, or if a launcher started them
            without naming one folder for all.
    """
    if not HydraConfig.initialized():
        return
    hydra, outside = HydraConfig.get(), {"RANK", "SLURM_PROCID"} & os.environ.keys()
    if hydra.mode == RunMode.MULTIRUN and not outside:
        raise UserError(
            "trainer.devices: expected 1 in a sweep, which spreads its runs over devices, "
            f"found {config.trainer.devices}"
        )
    named = any(item.startswith("hydra.run.dir=") for item in hydra.overrides.hydra)
    if hydra.mode == RunMode.RUN and outside and not named:
        raise UserError(
            "hydra.run.dir: expected one folder for all processes of the run, found none; "
            "give hydra.run.dir=…"
        )


def runs_in_parallel() -> bool:
    """Whether a launcher may run several jobs at once, whose bars would overwrite each other."""
    if not HydraConfig.initialized():
        return False
    hydra = HydraConfig.get()
    launcher = hydra.runtime.choices.get("hydra/launcher", "basic")
    return hydra.mode == RunMode.MULTIRUN and launcher != "basic"
