"""Hydra's sweeper for grids, which says what it does before the first run starts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

from dvae.runs.files import read_json
from dvae.runs.folder import FINAL

__all__ = ["GridSweeper"]


class GridSweeper(BasicSweeper):
    """Runs every combination of values, as Hydra's own sweeper does."""

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Says how many runs there are, and composes one for each combination of options.

        Values of single keys do not decide whether a configuration composes. With a run for each of
        them, a sweep of 1,000 runs would be silent for a minute.
        """
        config: Any = self.config
        states = Path(config.hydra.sweep.dir).rglob("status.json")
        ended = sum(read_json(path).get("state") in FINAL for path in states)
        print(f"{len(batch)} runs{f', {ended} of which have ended' if ended else ''}", flush=True)
        kinds = {tuple(filter(self._chooses_option, job)): job for job in batch}
        super().validate_batch_is_legal(list(kinds.values()))

    def _chooses_option(self, override: str) -> bool:
        context: Any = self.hydra_context
        group = override.lstrip("+~").partition("=")[0].partition("@")[0]
        return bool(context.config_loader.get_group_options(group))
