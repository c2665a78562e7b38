"""What `resume=` on a command line stands for. Nothing here imports torch."""

from collections.abc import Sequence
from pathlib import Path

from dvae.errors import UserError
from dvae.runs.files import overrides_of

__all__ = ["quoted", "resumed"]


def resumed(arguments: Sequence[str], runs: Path) -> list[str]:
    """Spells `resume=` out: the settings of the run that is to go on, its folder, its checkpoint.

    `resume=last` is the run in `hydra.run.dir` where that is given, and the one that has saved last
    otherwise. `resume=PATH` is a run's folder, or one of its checkpoints. Settings that are given
    besides take the place of the run's own. A run that was cut off before its first checkpoint
    begins anew. A checkpoint that lies elsewhere is gone on from in a new folder.

    Args:
        arguments: The command line without the program's name.
        runs: The folder of all runs.

    Returns:
        The arguments with the run's own before them; unchanged where there is no `resume=`.

    Raises:
        UserError: If there is no such run, or many runs would go on from it.
    """
    given = {key.lstrip("+~"): text for key, _, text in (item.partition("=") for item in arguments)}
    target = given.get("resume", "null").strip("'\"")
    if target == "null":
        return list(arguments)
    if {"-m", "--multirun", "hydra.mode", "sweep"} & given.keys():
        raise UserError(
            f"resume: expected no sweep, which goes on with hydra.sweep.dir=PATH, found {target}"
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
        # A checkpoint by itself: its run's settings are not at hand, nor is its folder.
        return [*others, f"resume={quoted(checkpoint)}"]
    saved = [f"hydra.run.dir={quoted(folder)}", *overrides_of(folder)]
    own = [item for item in saved if item.partition("=")[0].lstrip("+~") not in {*given, "sweep"}]
    if path.is_dir() and not checkpoint.is_file():
        return [*own, *others]
    return [*own, *others, f"resume={quoted(checkpoint)}"]


def _newest(runs: Path) -> Path:
    """The folder of the run that has saved last."""
    saved = runs.glob("*/checkpoints/last.ckpt")
    newest = max(saved, key=lambda path: path.stat().st_mtime, default=None)
    if newest is None:
        raise UserError(f"resume: expected a run with a checkpoint in {runs}, found none")
    return newest.parent.parent


def quoted(path: Path | str) -> str:
    """A path as Hydra reads it: names of runs hold commas and equals signs."""
    text = str(path).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{text}'"
