"""Options: plain values of exact types, each declared once; a mistake is reported in one line.

A family, such as the gradient estimators, is a package. Each of its members has a class of options
in a module whose name ends with `_options`: the fields with their ranges and defaults, facts about
the member, and `build()`. Nothing here imports torch, so mistakes are reported at once.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import reduce
from importlib import import_module
from operator import or_
from pkgutil import iter_modules
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import PydanticKnownError

from dvae.errors import UserError, nearest

__all__ = [
    "MAX_ENUMERATION",
    "AnyOptions",
    "Count",
    "Device",
    "Fraction",
    "Limit",
    "NonNegative",
    "Options",
    "PathName",
    "Positive",
    "Seed",
    "Size",
    "Split",
    "Steps",
    "count_hint",
    "find_members",
    "one_of",
    "parse",
    "union_of",
]

MAX_ENUMERATION = 16_384
"""The largest number of codes, K^N, that can be enumerated."""

PathName = Annotated[str, Field(min_length=1), AfterValidator(os.path.expanduser)]
"""A path, in which `~` stands for the home folder."""
Count = Annotated[int, Field(ge=1)]
Size = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Split = Literal["train", "val", "test"]
Device = Literal["auto", "cpu", "cuda"]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


def _count_or_fraction(value: int | float) -> int | float:
    if value < 0 or (isinstance(value, float) and value > 1):
        raise ValueError("a whole number >= 0 or a fraction from 0.0 to 1.0")
    return value


Steps = Annotated[int | float, AfterValidator(_count_or_fraction)]
"""A count of optimizer steps (a whole number), or a fraction of the run (with a decimal point)."""


def count_hint(value: int | float) -> str:
    """Ends a remark about a count or fraction; empty unless 1 and 1.0 may have been confused."""
    return "; 1 means one, 1.0 means all" if value == 1 else ""


def _not_zero(value: int | float) -> int | float:
    if value == 0:
        raise ValueError("a whole number >= 1 or a fraction above 0.0 and up to 1.0")
    return value


Limit = Annotated[Steps, AfterValidator(_not_zero)]
"""The most batches to use: a count (a whole number), or a fraction (with a decimal point)."""


class Options(BaseModel):
    """Plain values of exact types; unknown keys are refused.

    A rule that spans several fields is a validator that raises a `UserError`, whose text is shown
    to the user.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


AnyOptions = TypeVar("AnyOptions", bound=Options)


def one_of(names: Iterable[str]) -> AfterValidator:
    """Restricts a string to some names, such as the keys of a table."""
    allowed = list(names)

    def check(value: str) -> str:
        if value not in allowed:
            quoted = [repr(name) for name in allowed]
            expected = " or ".join([", ".join(quoted[:-1]), quoted[-1]])
            raise PydanticKnownError("literal_error", {"expected": expected})
        return value

    return AfterValidator(check)


def find_members(
    package: str, path: Iterable[str], family: type[AnyOptions]
) -> dict[str, type[AnyOptions]]:
    """The options classes of a family's members, by name.

    Args:
        package: The family's package.
        path: Its `__path__`; all modules in it whose names end with `_options` are imported.
        family: The base class of the members' options. Each member has a field
            `name: Literal["its_name"] = "its_name"`.

    Returns:
        Name in configurations → options class, in alphabetical order.

    Raises:
        ValueError: If two members have the same name.
    """
    for module in iter_modules(path):
        if module.name.endswith("_options"):
            import_module(f"{package}.{module.name}")
    found: dict[str, type[AnyOptions]] = {}
    for member in _descendants(family):
        names = get_args(member.model_fields["name"].annotation)
        for name in names if member.__module__.startswith(f"{package}.") else ():
            # A class with two bases in the family is met twice.
            if found.get(name, member) is not member:
                raise ValueError(
                    f"{package}: expected one member with the name {name!r}, found two, in "
                    f"{found[name].__module__} and {member.__module__}"
                )
            found[name] = member
    return dict(sorted(found.items()))


def _descendants(family: type[AnyOptions]) -> Iterator[type[AnyOptions]]:
    for child in family.__subclasses__():
        yield child
        yield from _descendants(child)


def union_of(members: Mapping[str, type[Options]]) -> Any:
    """The type of a field that holds the options of any member; `name` says which."""
    kinds = tuple(members.values())
    if len(kinds) == 1:
        return kinds[0]
    return Annotated[reduce(or_, kinds), Field(discriminator="name")]


def parse(schema: type[AnyOptions], values: Any) -> AnyOptions:
    """Checks plain values, from Hydra or from a checkpoint.

    Args:
        schema: The class of options to check against.
        values: The values.

    Raises:
        UserError: One line that names each wrong key, what was expected and what was found.
    """
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        lines = dict.fromkeys(_explain(item, values) for item in error.errors())
        raise UserError("; ".join(lines)) from error


def _explain(item: Any, values: Any) -> str:
    """Turns one of pydantic's errors into one clause."""
    # Pydantic's location also contains names of union members, which are not keys of the input.
    path: list[str] = []
    node = values
    for part in item["loc"]:
        if (isinstance(node, dict) and part in node) or isinstance(node, list):
            node = node[part]
        elif item["type"] != "missing" or part != item["loc"][-1]:
            continue
        path.append(str(part))
    key = ".".join(path)
    context = item.get("ctx", {})
    match item["type"]:
        case "value_error" if isinstance(context["error"], UserError):
            return str(context["error"])
        case "extra_forbidden":
            siblings = _siblings(path[:-1], path[-1], values)
            return f"{key}: no such key{nearest(path[-1], siblings)}"
        case "missing":
            return f"{key}: expected a value, found none"
        case "union_tag_not_found":
            return f"{key}.name: expected a value, found none"
        case "literal_error" | "union_tag_invalid":
            expected = str(context.get("expected") or context.get("expected_tags"))
            if item["type"] == "union_tag_invalid":
                key, node = f"{key}.name", item["input"].get("name")
            options = [option.strip("'") for option in expected.replace(" or ", ", ").split(", ")]
            return f"{key}: expected one of {expected}, found {node!r}{nearest(str(node), options)}"
    expected = re.sub("^(Input should be|Value error,|(String|List) should have) ", "", item["msg"])
    expected = expected.partition(" after validation")[0]
    return f"{key}: expected {expected}, found {item['input']!r}"


def _siblings(path: list[str], wrong: str, values: Any) -> list[str]:
    """The other keys in the mapping that contains the wrong key."""
    node = values
    for part in path:
        node = node[part]
    return sorted(set(node) - {wrong})
