"""Formats metrics as tables on the screen."""

from collections.abc import Mapping, Sequence

from rich.table import Table

__all__ = ["latents_table", "metrics_table"]


def metrics_table(title: str, metrics: Mapping[str, float], units: Mapping[str, str]) -> Table:
    """A table of metrics.

    Args:
        title: Title.
        metrics: Split/name → value.
        units: Name, or its beginning → unit; nats per image by default.
    """
    table = Table(title=title, title_justify="left")
    table.add_column("metric", overflow="fold")
    table.add_column("value", justify="right")
    table.add_column("unit", style="dim")
    for name, value in metrics.items():
        short = name.rpartition("/")[2]
        found = [unit for start, unit in units.items() if short.startswith(start)]
        table.add_row(name, f"{value:.2f}", found[0] if found else "nats per image")
    return table


def latents_table(columns: Mapping[str, Sequence[float]]) -> Table:
    """A table with a row for each latent and a column for each entry of `columns`."""
    table = Table(title="Latents", title_justify="left")
    for name in ("latent", *columns):
        table.add_column(name, justify="right")
    for number, row in enumerate(zip(*columns.values(), strict=True)):
        table.add_row(str(number), *(f"{value:.2f}" for value in row))
    return table
