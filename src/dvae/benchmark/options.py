"""The configuration of the benchmark."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from dvae.errors import UserError
from dvae.options import Count, Options, Positive, Size
from dvae.training.options import PathOptions

__all__ = ["BenchmarkConfig"]


class BenchmarkConfig(Options):
    """See `dvae.benchmark.cases.benchmark`; with targets, `dvae.benchmark.quality`."""

    cases: Annotated[list[str], Field(min_length=1)]
    relative_to: str
    shared: list[str]
    extra: list[str] = Field([])
    targets: list[Positive] = Field([])
    steps: Count = 200
    rounds: Count = 7
    warmup: Size = 1
    profile: bool = False
    paths: PathOptions

    @model_validator(mode="after")
    def _check_reference(self) -> Self:
        if self.relative_to not in self.cases:
            raise UserError(
                f"relative_to: expected one of the cases {self.cases}, found {self.relative_to!r}"
            )
        return self
