"""Metrics as a table on screen, and files that are whole or absent."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from rich.table import Table

__all__ = ["latents_table", "metrics_table", "write_file", "write_json"]

_UNITS = {
    "usage_perplexity": "categories, mean over latents",
    "latent_information": "nats, mean over latents",
    "active_latents": "latents",
}


def metrics_table(title: str, metrics: Mapping[str, float]) -> Table:
    """A table of metrics with their units."""
    table = Table(title=title, title_justify="left")
    table.add_column("metric")
    table.add_column("value", justify="right")
    table.add_column("unit", style="dim")
    for name, value in metrics.items():
        table.add_row(name, f"{value:.2f}", _UNITS.get(name.rpartition("/")[2], "nats per image"))
    return table


def latents_table(columns: Mapping[str, Sequence[float]]) -> Table:
    """A table with a row a latent: how many categories it uses, what it tells in nats."""
    table = Table(title="Latents", title_justify="left")
    for name in ("latent", *columns):
        table.add_column(name, justify="right")
    for number, row in enumerate(zip(*columns.values(), strict=True)):
        table.add_row(str(number), *(f"{value:.2f}" for value in row))
    return table


@contextmanager
def write_file(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Opens a file beside its place and renames it, so that the file is whole or absent."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open(mode, newline=None if "b" in mode else "") as file:
            yield file
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Writes JSON, whole or not at all."""
    with write_file(path) as file:
        file.write(json.dumps(content, indent=2) + "\n")
