"""Paths among the arguments of a command. Nothing here imports torch.

Hydra's grammar has no `#`, `&`, `~` or accents, and takes commas, brackets and equal signs for
syntax. Paths may contain them all, so they are put in quotes before Hydra reads them.
"""

import os
from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString, ValueType
from hydra.errors import HydraException

__all__ = ["is_sweep", "quote_paths", "quoted", "text_of"]

_PATHS = {
    "checkpoint",
    "codes",
    "data.root",
    "data.test",
    "data.train",
    "data.val",
    "data_dir",
    "hydra.run.dir",
    "hydra.sweep.dir",
    "output",
    "output_dir",
    "paths.data_dir",
    "paths.output_dir",
    "resume",
}
"""Keys whose values are paths."""


def is_sweep(arguments: Sequence[str]) -> bool:
    """Whether a command line starts a sweep: by a flag, by `hydra.mode` or by a preset."""
    given = {key.lstrip("+"): text for key, _, text in (item.partition("=") for item in arguments)}
    if {"-m", "--multirun"} & given.keys():
        return True
    return given.get("hydra.mode", "MULTIRUN" if "sweep" in given else "") == "MULTIRUN"


def quote_paths(arguments: Sequence[str]) -> list[str]:
    """Puts paths in quotes where Hydra would not read them as they are, and expands `~`.

    What Hydra can read as a path keeps its meaning: quotes, escapes, interpolations and null. In a
    sweep, commas separate paths, except within the names of existing files. Values of other keys
    are taken for paths if Hydra cannot read them and they contain a slash.

    Args:
        arguments: The command line without the program's name, or overrides.

    Returns:
        The same arguments in the same order.
    """
    sweep = is_sweep(arguments)
    return [_quote_argument(item, sweep) for item in arguments]


def quoted(path: os.PathLike[str] | str) -> str:
    """A path in quotes, so that Hydra accepts any character in it."""
    return QuotedString(os.fspath(path), Quote.single).with_quotes()


def text_of(value: str) -> str:
    """The path that a value on the command line stands for: without quotes, with `~` expanded."""
    parsed = _parse(value)
    text = parsed.value() if parsed is not None else None
    return os.path.expanduser(text if isinstance(text, str) else value)


def _quote_argument(argument: str, sweep: bool) -> str:
    key, _, value = argument.partition("=")
    if key.startswith("-"):
        # The shell does not expand ~ in --config-dir=~/configs.
        return f"{key}={os.path.expanduser(value)}" if value else argument
    if not value:
        return argument
    if key.lstrip("+") not in _PATHS and (
        "/" not in value or value[0] in "[{" or _parse(value) is not None
    ):
        return argument
    # Hydra's own keys cannot be swept.
    several = sweep and "," in value and not key.startswith("hydra.")
    return f"{key}={_quote_list(value) if several else _quote(value)}"


def _parse(value: str) -> Override | None:
    """What Hydra understands; None if it does not."""
    try:
        return OverridesParser.create().parse_override(f"path={value}")
    except HydraException:
        return None


def _quote(value: str) -> str:
    """One path, in quotes unless Hydra reads the value as a path or as null."""
    parsed = _parse(value)
    is_element = parsed is not None and parsed.value_type == ValueType.ELEMENT
    meaning = parsed.value() if parsed is not None and is_element else value
    if value[:1] in ("'", '"'):
        tilde = is_element and isinstance(meaning, str) and meaning.startswith("~")
        return quoted(os.path.expanduser(str(meaning))) if tilde else value
    # A name such as 2024_01 would be read as a number, and spaces at the ends would be lost.
    same = isinstance(meaning, str) and (meaning == value or "\\" in value)
    if is_element and (same or meaning is None):
        return value
    return quoted(os.path.expanduser(value))


def _quote_list(value: str) -> str:
    """Paths that commas separate."""
    parsed = _parse(value)
    simple = parsed is None or parsed.value_type == ValueType.SIMPLE_CHOICE_SWEEP
    if value[:1] in ("'", '"') or not simple:
        return value
    parts = value.split(",")
    paths = _join_existing(parts)
    if paths is None and parsed is not None:
        return value
    return ",".join(_quote(path) for path in paths or parts)


def _join_existing(parts: Sequence[str]) -> list[str] | None:
    """Joins parts that commas within the names of files have separated.

    Returns:
        The shortest paths such that all exist; None if there is no such list.
    """
    # The list that the parts from each index on make, from the last index to the first.
    lists: list[list[str] | None] = [[]]
    for start in reversed(range(len(parts))):
        best = None
        for length, rest in enumerate(reversed(lists), 1):
            path = ",".join(parts[start : start + length])
            if rest is not None and os.path.exists(os.path.expanduser(path)):
                best = [path, *rest]
                break
        lists.append(best)
    return lists[-1]
