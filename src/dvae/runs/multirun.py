"""What Hydra calls before and after a sweep, whichever launcher runs it."""

import sys
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

__all__ = ["SweepCallback"]


class SweepCallback(Callback):
    """Names the runs of a sweep by what differs between them, and sums the sweep up at its end."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Leaves what all runs share out of the names of their folders; says how to go on."""
        swept, fixed = _split(config)
        if swept:
            # Each job is composed anew from these overrides: changed values would be lost.
            keys = ",".join(f"'{key}'" for key in fixed)
            names = f"hydra.job.config.override_dirname.exclude_keys=[{keys}]"
            config.hydra.overrides.hydra.append(names)
        print(
            f"sweep in {config.hydra.sweep.dir}\n"
            f"go on after an interruption: the same command and hydra.sweep.dir=PATH, this folder"
        )

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Writes table and plot; ends with exit code 2 where no run has finished."""
        from dvae.runs.results import find_runs
        from dvae.runs.summary import summarize

        folder = Path(config.hydra.sweep.dir)
        # Jobs of other scripts leave no runs to compare.
        if find_runs(folder) and not summarize(folder):
            print("error: sweep: expected a run that finishes, found none", file=sys.stderr)
            raise SystemExit(2)


def _split(config: DictConfig) -> tuple[list[str], list[str]]:
    """Keys that a sweep varies, and keys that all its runs share; seeds count like any other."""
    params = OmegaConf.select(config, "hydra.sweeper.params") or {}
    texts = [f"{key}={value}" for key, value in params.items()]
    overrides = OverridesParser.create().parse_overrides([*texts, *config.hydra.overrides.task])
    last = {override.key_or_group: override.is_sweep_override() for override in overrides}
    return [key for key in last if last[key]], [key for key in last if not last[key]]
