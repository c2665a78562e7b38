"""Resolves `resume=` on the command line. Nothing here imports torch."""

from collections.abc import Sequence
from pathlib import Path

from dvae.errors import UserError
from dvae.runs.files import overrides_of

__all__ = ["quoted", "resumed"]


def resumed(arguments: Sequence[str], runs: Path) -> list[str]:
    """Replaces `resume=` by the overrides, the folder and the checkpoint of the run to resume.

    `resume=last` is the run in `hydra.run.dir` if that is given, otherwise the run that saved last.
    `resume=PATH` is the folder of a run, or a checkpoint in it. Other arguments override the
    settings of the run. A run without a checkpoint starts again. A checkpoint outside the folder of
    a run is resumed in a new folder, with the settings on the command line.

    Args:
        arguments: The command line without the program's name.
        runs: The folder that holds all runs.

    Returns:
        The overrides of the run, then the arguments; only the arguments if there is no `resume=`.

    Raises:
        UserError: If there is no such run, or if the command line starts a sweep.
    """
    given = {key.lstrip("+~"): text for key, _, text in (item.partition("=") for item in arguments)}
    target = given.get("resume", "null").strip("'\"")
    if target == "null":
        return list(arguments)
    if {"-m", "--multirun", "hydra.mode", "sweep"} & given.keys():
        raise UserError(
            f"resume: expected null in a sweep, found {target}; "
            "hydra.sweep.dir=PATH resumes a sweep"
        )
    named = given.get("hydra.run.dir", "").strip("'\"")
    path = Path(target)
    if target == "last":
        path = Path(named) if named else _newest(runs)
    path = path.absolute()
    checkpoint = path / "checkpoints" / "last.ckpt" if path.is_dir() else path
    folder = checkpoint.parent.parent
    others = [item for item in arguments if not item.startswith("resume=")]
    is_run = checkpoint.parent.name == "checkpoints" and (folder / "status.json").is_file()
    if not path.is_file() and not is_run:
        found = "another folder" if path.is_dir() else "nothing"
        raise UserError(f"resume: expected a run's folder or a checkpoint, found {found}: {path}")
    if not is_run:
        # Without the folder of the run, its settings are unknown.
        return [*others, f"resume={quoted(checkpoint)}"]
    saved = [f"hydra.run.dir={quoted(folder)}", *overrides_of(folder)]
    own = [item for item in saved if item.partition("=")[0].lstrip("+~") not in {*given, "sweep"}]
    # Settings stand beside each other: between them, flags such as --config-dir are refused.
    if path.is_dir() and not checkpoint.is_file():
        return [*others, *own]
    return [*others, *own, f"resume={quoted(checkpoint)}"]


def _newest(runs: Path) -> Path:
    """The folder of the run that saved a checkpoint last."""
    saved = runs.glob("*/checkpoints/last.ckpt")
    newest = max(saved, key=lambda path: path.stat().st_mtime, default=None)
    if newest is None:
        raise UserError(f"resume: expected a run with a checkpoint in {runs}, found none")
    return newest.parent.parent


def quoted(path: Path | str) -> str:
    """A path in quotes, so that Hydra accepts the commas and equals signs in names of runs."""
    text = str(path).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{text}'"
