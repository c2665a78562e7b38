"""One run over several processes: what has to be the same in all of them."""

import os

import pytorch_lightning as pl
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from torch import distributed

from dvae.errors import UserError
from dvae.training.config import RunConfig

__all__ = ["SharedBuffers", "check_processes"]


class SharedBuffers(pl.Callback):
    """Gives all processes the buffers of the first before they evaluate: one model is scored.

    Batch normalization keeps running statistics in buffers, of the part of a batch that each
    process sees.
    """

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Broadcasts the buffers."""
        for buffer in pl_module.buffers():
            distributed.broadcast(buffer, src=0)


def check_processes(config: RunConfig) -> None:
    """Refuses what several processes cannot do together.

    Raises:
        UserError: If a sweep would have to start them, or those that were started together would
            write into a folder each.
    """
    if not HydraConfig.initialized():
        return
    hydra, outside = HydraConfig.get(), {"RANK", "SLURM_PROCID"} & os.environ.keys()
    if hydra.mode == RunMode.MULTIRUN and not outside:
        raise UserError(
            "trainer.devices: expected 1 in a sweep, whose runs are what is spread over devices, "
            f"found {config.trainer.devices}"
        )
    named = any(item.startswith("hydra.run.dir=") for item in hydra.overrides.hydra)
    if hydra.mode == RunMode.RUN and outside and not named:
        raise UserError(
            "hydra.run.dir: expected one folder for all processes that were started together, "
            "found none; give hydra.run.dir=…"
        )
