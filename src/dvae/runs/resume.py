"""Resolves `resume=` on the command line. Nothing here imports torch."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dvae.errors import UserError
from dvae.runs.arguments import is_sweep, quoted, text_of
from dvae.runs.files import flatten, overrides_of, read_yaml
from dvae.runs.folder import is_first_process

__all__ = ["resumed"]


def resumed(arguments: Sequence[str], runs: Path, configs: Sequence[Path] = ()) -> list[str]:
    """Replaces `resume=` by the overrides, the folder and the checkpoint of the run to resume.

    `resume=last` is the run in `hydra.run.dir` if that is given, otherwise the user's run that
    saved last. `resume=PATH` is the folder of a run, or a checkpoint in it. Other arguments
    override the settings of the run, and options of groups override those that they decide. A run
    without a checkpoint starts again. A checkpoint outside the folder of a run is resumed in a new
    folder, with the settings on the command line.

    Args:
        arguments: The command line without the program's name.
        runs: The folder that holds all runs.
        configs: The folders of configurations, in which the options of groups are looked up.

    Returns:
        The overrides of the run, then the arguments; only the arguments if there is no `resume=`.

    Raises:
        UserError: If there is no such run, or if the command line starts a sweep.
    """
    given = {key.lstrip("+~"): text for key, _, text in (item.partition("=") for item in arguments)}
    target = text_of(given.get("resume", "null"))
    if target == "null":
        return list(arguments)
    if is_sweep(arguments):
        raise UserError(
            f"resume: expected null in a sweep, found {target}; "
            "hydra.sweep.dir=PATH resumes a sweep"
        )
    named = text_of(given.get("hydra.run.dir", ""))
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
    if target == "last" and is_first_process():
        print(f"resuming {folder}", flush=True)
    saved = [f"hydra.run.dir={quoted(folder)}", *overrides_of(folder)]
    own = [
        item
        for item in saved
        if (key := item.partition("=")[0].lstrip("+~")) not in {*given, "sweep"}
        and not any(_decides(group, given[group], key, configs) for group in given)
    ]
    # Settings stand beside each other: between them, flags such as --config-dir are refused.
    if path.is_dir() and not checkpoint.is_file():
        return [*others, *own]
    return [*others, *own, f"resume={quoted(checkpoint)}"]


def _newest(runs: Path) -> Path:
    """The folder of this user's run that saved a checkpoint last."""
    saved = {path: path.stat() for path in runs.glob("*/checkpoints/last.ckpt")}
    # Several people may share the folder; Windows has no numbers of users.
    user = os.getuid() if hasattr(os, "getuid") else None
    own = [path for path, about in saved.items() if user in (None, about.st_uid)]
    if not own:
        found = f"{len(saved)} of other users" if saved else "none"
        raise UserError(
            f"resume: expected a run of yours with a checkpoint in {runs}, found {found}"
        )
    return max(own, key=lambda path: saved[path].st_mtime).parent.parent


def _decides(group: str, option: str, key: str, configs: Sequence[Path]) -> bool:
    """Whether choosing an option of a group decides a setting.

    It decides the settings of the group in which its options differ: `trainer=cpu` decides
    `trainer.accelerator`, but not `trainer.max_epochs`. Beyond the group, it decides the settings
    that its file names: `debug=fast` decides `trainer.max_epochs`.
    """
    files = {path.stem: path for folder in configs for path in (folder / group).glob("*.yaml")}
    if option not in files:
        return False
    settings = {name: _settings(path) for name, path in files.items()}
    chosen = settings[option]
    if not key.startswith(f"{group}."):
        return key in chosen
    return key not in chosen or any(
        other.get(key, ...) != chosen[key] for other in settings.values()
    )


def _settings(path: Path) -> dict[str, Any]:
    """The settings in the file of an option and in the options that it starts from."""
    content = read_yaml(path)
    starts = content.pop("defaults", [])
    # Without the package of an entry, as in elbo@objective: it is the group's own.
    names = [name.partition("@")[0] for name in starts if isinstance(name, str)]
    inherited = [_settings(path.with_name(f"{name}.yaml")) for name in names if name != "_self_"]
    prefix = "" if "@package _global_" in path.read_text() else f"{path.parent.name}."
    own = flatten(content, prefix)
    return {key: value for part in [*inherited, own] for key, value in part.items()}
