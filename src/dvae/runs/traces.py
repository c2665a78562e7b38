"""A refused command leaves nothing behind."""

import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from dvae.runs.folder import is_first_process

__all__ = ["Traces", "remove_traces"]

_UNIMPORTANT = {".hydra", ".lock", "multirun.yaml", "status.json"}
"""What is written before a run or a sweep has results; log files are the other such files."""
_folder: Path | None = None
_files: set[str] = set()
_missing: list[Path] = []


class Traces(Callback):
    """Hydra callback that remembers what existed before the command."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Looks into the folder of a run."""
        _remember(Path(config.hydra.run.dir))
        if ".hydra" in _files:
            # They are of the run in this folder.
            config.hydra.output_subdir = None

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Looks into the folder of a sweep."""
        _remember(Path(config.hydra.sweep.dir))

    def on_run_end(self, config: DictConfig, **kwargs: Any) -> None:
        """The command was not refused."""
        _forget()

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """The command was not refused."""
        _forget()


def _remember(folder: Path) -> None:
    global _folder, _files, _missing
    _folder = folder.absolute()
    _files = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    _missing = [path for path in (_folder, *_folder.parents) if not path.exists()]


def _forget() -> None:
    global _folder
    _folder = None


def remove_traces() -> None:
    """Removes what the command has created, unless results are among it."""
    if _folder is not None and _folder.is_dir() and is_first_process():
        new = [path for path in _folder.iterdir() if path.name not in _files]
        if all(path.name in _UNIMPORTANT or path.suffix == ".log" for path in new):
            with suppress(OSError):
                for path in new:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
                for path in _missing:
                    path.rmdir()
    _forget()
