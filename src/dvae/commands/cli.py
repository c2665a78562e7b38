"""The command line: Hydra composes, a schema checks, and a mistake is reported in one line."""

import errno
import logging
import math
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from yaml import YAMLError

from dvae.commands.checking import check
from dvae.commands.own_hydra import own_hydra
from dvae.commands.places import CONFIGS, ROOT, home
from dvae.commands.quiet import quiet
from dvae.commands.resolvers import register
from dvae.commands.startup import prepare
from dvae.errors import (
    BusyError,
    OtherRunError,
    PrunedError,
    UserError,
    install_command,
    nearest,
)
from dvae.options import AnyOptions
from dvae.runs.arguments import quote_paths, quoted
from dvae.runs.folder import record
from dvae.runs.resume import resumed
from dvae.runs.traces import remove_traces

__all__ = ["CONFIGS", "ROOT", "compose", "explain", "folders", "run"]

EXIT_CODE = 2
_WRONG_GROUP = "Config group override"
"""How Hydra's ValueError for `group=number` begins."""
_USER_ERRORS = (
    UserError,
    HydraException,
    OmegaConfBaseException,
    OSError,
    UnicodeDecodeError,
    YAMLError,
)

_EXTRAS = {
    "joblib": "joblib",
    "ray": "ray",
    "submitit_local": "slurm",
    "submitit_slurm": "slurm",
}
"""Launcher → the extra that installs it."""

_NO_PLACE = {errno.EACCES, errno.EDQUOT, errno.ENOSPC, errno.EPERM, errno.EROFS}
"""Errors of folders that cannot be written to: full, read-only or of other people."""

_PLACES = {
    "encode": "output_dir=…, hydra.sweep.dir=… and data_dir=…",
    "evaluate": "output=…, hydra.sweep.dir=… and data_dir=…",
    "sample": "output_dir=…, hydra.sweep.dir=… and data_dir=…",
}
"""Keys of the places that a command writes to."""

register()

# Plugins store their configurations when they are found; these two take the place of others.
Plugins.instance()
_STORE = ConfigStore.instance()
_JOBLIB = {"_target_": "hydra_plugins.dvae_joblib.JoblibLauncher", "n_jobs": -1}
_STORE.store("joblib", _JOBLIB, "hydra/launcher", provider="dvae")
_GRID = {"_target_": "hydra_plugins.dvae_grid.GridSweeper", "max_batch_size": None, "params": None}
_STORE.store("basic", _GRID, "hydra/sweeper", provider="dvae")


def run(name: str, schema: type[AnyOptions], task: Callable[[AnyOptions], Any]) -> None:
    """Runs a task with the configuration from the command line.

    Args:
        name: Name of the configuration in `CONFIGS`.
        schema: The class of options to check it against.
        task: Called with the checked configuration, once for each job of a sweep.
    """
    # Let errors reach this function: Hydra would print tracebacks and exit with code 1.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    # Before the libraries are imported; jobs of a launcher may be in processes of their own.
    quiet()
    failed = []

    @hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name=name)
    def job(config: DictConfig) -> Any:
        quiet()
        try:
            return task(check(schema, _plain(config)))
        except OtherRunError as error:
            _refuse(error, name)
        except Exception as wrapped:
            cause = _unwrapped(wrapped)
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                failed.append(cause)
                return _record_failure(cause)
            if isinstance(cause, _USER_ERRORS):
                _refuse(cause, name)
            raise

    prepare()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _exit_on_signal)
    try:
        # Between settings, argparse would refuse the flag.
        sys.argv[1:] = sorted(sys.argv[1:], key=lambda item: item not in ("-m", "--multirun"))
        sys.argv[1:] = quote_paths(sys.argv[1:])
        if "resume" in schema.model_fields:
            sys.argv[1:] = resumed(sys.argv[1:], home() / "outputs" / "runs", folders())
        job()
        # A sweep of runs ends with a table of them; other sweeps have only their exit code.
        if failed and "resume" not in schema.model_fields:
            raise SystemExit(EXIT_CODE)
    except BrokenPipeError:
        # The reader of the output, such as `head`, has closed the pipe. This is not an error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except _USER_ERRORS as error:
        _refuse(error, name)
    except ValueError as error:
        if not str(error).startswith(_WRONG_GROUP):
            raise
        _fail(explain(error, name))


def _exit_on_signal(number: int, frame: FrameType | None) -> NoReturn:
    """Exits with 128 + the signal's number, as shells do."""
    raise SystemExit(128 + number)


def _record_failure(error: Exception) -> float:
    """Records why one run of a sweep failed, and returns NaN so that the sweep continues."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    expected = isinstance(error, (*_USER_ERRORS, PrunedError))
    # The folder of a busy run belongs to that run: leave its status alone.
    reason = str(error) if isinstance(error, BusyError) else record(folder, error)
    logging.getLogger(__name__).error(
        "%s: %s", folder.name, reason, exc_info=None if expected else error
    )
    return math.nan


def compose(name: str, overrides: list[str]) -> Any:
    """Composes a configuration from overrides, as plain values; also works inside a job."""
    with own_hydra():
        config = _compose(name, overrides, with_hydra=True)
        with open_dict(config):
            # Where Hydra would run a job with these overrides.
            config.hydra.runtime.output_dir = os.path.abspath(config.hydra.run.dir)
        HydraConfig.instance().set_config(config)
        own = [str(key) for key in config if key != "hydra"]
        return _plain(OmegaConf.masked_copy(config, own))


def _compose(name: str, overrides: list[str], *, with_hydra: bool = False) -> DictConfig:
    with own_hydra(), hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
        paths = ",".join(quoted(f"file://{path.absolute()}") for path in folders()[1:])
        search = [f"hydra.searchpath=[{paths}]"] if paths else []
        overrides = [*quote_paths(overrides), *search]
        return hydra.compose(name, overrides, return_hydra_config=with_hydra)


def _plain(config: DictConfig) -> dict[str, Any]:
    """Resolved plain values, without helper keys such as `_tuned`; `_target_` is none of them."""
    values: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    return {k: v for k, v in values.items() if not k.startswith("_") or k.endswith("_")}


def _refuse(error: Exception, name: str) -> NoReturn:
    # What lies in the folder of a busy run belongs to that run.
    if not isinstance(error, BusyError):
        remove_traces()
    _fail(explain(error, name))


def _fail(line: str) -> NoReturn:
    print(f"error: {' '.join(line.split())}", file=sys.stderr)
    raise SystemExit(EXIT_CODE)


def explain(error: Exception, name: str) -> str:
    """One line on the mistake; Hydra's own advice, to append a mistyped key with +, is wrong."""
    text = str(error) or str(error.__cause__ or type(error).__name__)
    if text.startswith(_WRONG_GROUP):
        # The message for `group=number` names neither the group nor the number.
        given = dict(item.lstrip("+").split("=", 1) for item in sys.argv[1:] if "=" in item)
        for group in given.keys() & set(_groups()):
            if given[group] not in _options(group):
                return _no_option(group, given[group])
    if isinstance(error := _unwrapped(error), UserError):
        return str(error)
    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key}: expected a value, found none; give {error.full_key}=…"
    if isinstance(error, OSError) and not isinstance(error, HydraException):
        return _explain_file(error, name)
    if match := re.search(r"Could not find '([^']+)/([^/']+)'", text):
        return _no_option(*match.groups())
    if match := re.search(r"Could not (?:override|append|delete)[^']*'([^']+)'", text):
        key = match.group(1).split("@")[0]
        if key == "sweep" and name == "train":
            return "sweep: no such key; add a preset with +sweep=…"
        return f"{key}: no such key{nearest(key, _keys(name))}"
    if match := re.search(r"Key '([^']+)' is not in struct", text):
        return f"{match.group(1)}: no such key"
    return text.partition("See https")[0].partition("full_key:")[0]


def _unwrapped(error: Exception) -> Exception:
    """Our own error, if Hydra or OmegaConf has wrapped it, as for each interpolation on its way."""
    inner: BaseException | None = error
    while isinstance(inner, HydraException | OmegaConfBaseException):
        inner = inner.__cause__ or inner.__context__
    return inner if isinstance(inner, UserError) else error


def _explain_file(error: OSError, name: str) -> str:
    """One line on a file that cannot be read or written, and the keys that choose another place."""
    folder = HydraConfig.get().runtime.output_dir if HydraConfig.initialized() else "file"
    line = f"{error.filename or folder}: expected to read or write it, found: {error.strerror}"
    keys = _PLACES.get(name, "hydra.run.dir=…, hydra.sweep.dir=… and paths.data_dir=…")
    return f"{line}; {keys} choose other places" if error.errno in _NO_PLACE else line


def folders() -> list[Path]:
    """The folders of configurations: the project's own, and that of `--config-dir`."""
    given = [
        following if item in ("--config-dir", "-cd") else item.removeprefix("--config-dir=")
        for item, following in zip(sys.argv, [*sys.argv[1:], ""], strict=True)
        if item in ("--config-dir", "-cd") or item.startswith("--config-dir=")
    ]
    return [CONFIGS, *(Path(folder) for folder in given if Path(folder).is_dir())]


def _groups() -> list[str]:
    paths = [path for folder in folders() for path in folder.iterdir()]
    return sorted({path.name for path in paths if path.is_dir() and path.name != "hydra"})


def _options(group: str) -> list[str]:
    return sorted({path.stem for folder in folders() for path in (folder / group).glob("*.yaml")})


def _no_option(group: str, option: str) -> str:
    if option in _EXTRAS:
        return (
            f"{group}={option}: expected the extra {_EXTRAS[option]}, found none; "
            f"{install_command(_EXTRAS[option])}"
        )
    options = sorted(
        {*_options(group), *(("basic", *_EXTRAS) if group == "hydra/launcher" else ())}
    )
    return (
        f"{group}: expected one of {', '.join(options)}, found {option!r}{nearest(option, options)}"
    )


def _keys(name: str) -> list[str]:
    """All dotted keys of a configuration with its defaults, and its groups."""

    def walk(node: Any, prefix: str) -> list[str]:
        if not isinstance(node, dict):
            return [prefix]
        below = [key for k, v in node.items() for key in walk(v, f"{prefix}.{k}" if prefix else k)]
        return below + ([prefix] if prefix else [])

    if name not in ("train", "schedule"):
        return walk(OmegaConf.to_container(_compose(name, [])), "")
    # Keys differ between tasks, networks, ….
    choices = {f"{group}={option}" for group in _groups() for option in _options(group)}
    chosen = [item for item in sys.argv[1:] if item in choices]
    return sorted({*walk(OmegaConf.to_container(_compose(name, chosen)), ""), *_groups()})
