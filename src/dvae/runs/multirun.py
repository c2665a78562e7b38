"""Hydra callback that runs before and after a sweep, with any launcher."""

import sys
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

__all__ = ["SweepCallback"]


class SweepCallback(Callback):
    """Names the runs of a sweep by the settings that differ, and summarizes the finished sweep."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Leaves shared settings out of the folders' names; prints how to resume the sweep."""
        swept, fixed = _split(config)
        if swept:
            # Jobs are composed again from the overrides: change these, not the value.
            keys = ",".join(f"'{key}'" for key in fixed)
            names = f"hydra.job.config.override_dirname.exclude_keys=[{keys}]"
            config.hydra.overrides.hydra.append(names)
        print(
            f"sweep in {config.hydra.sweep.dir}\n"
            "to resume it, repeat the command with this folder as hydra.sweep.dir"
        )

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Writes the table and the plot; exits with code 2 if no run has finished."""
        from dvae.runs.results import find_runs
        from dvae.runs.summary import summarize

        folder = Path(config.hydra.sweep.dir)
        # The jobs of other scripts are not runs.
        if find_runs(folder) and not summarize(folder):
            print("error: sweep: expected at least one finished run, found none", file=sys.stderr)
            raise SystemExit(2)


def _split(config: DictConfig) -> tuple[list[str], list[str]]:
    """The keys that a sweep varies, the seed included, and the keys that all its runs share."""
    params = OmegaConf.select(config, "hydra.sweeper.params") or {}
    texts = [f"{key}={value}" for key, value in params.items()]
    overrides = OverridesParser.create().parse_overrides([*texts, *config.hydra.overrides.task])
    last = {override.key_or_group: override.is_sweep_override() for override in overrides}
    return [key for key in last if last[key]], [key for key in last if not last[key]]
