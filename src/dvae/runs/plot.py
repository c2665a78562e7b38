"""The plot of a sweep: lines over the swept value, heat maps, or one panel for each key."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from dvae.files import write_file
from dvae.runs.ranking import Setting

__all__ = ["plot"]

Groups = Mapping[str, Sequence[Setting]]


def plot(path: Path, settings: Sequence[Setting]) -> None:
    """Plots the metric that settings are ranked by: mean and standard error over seeds.

    The x-axis is the swept number; each combination of the other overrides has a line. Two swept
    numbers with at least three values each give a heat map for each combination of the others. If
    most cells of the heat maps would be empty, as in a search, each key has a panel instead.

    Args:
        path: Where the PNG is written.
        settings: The settings of a sweep.
    """
    keys = list(settings[0].values)
    numbers = sorted(filter(lambda key: _numbers(settings, key), keys), key=_count(settings))
    x, y, *_ = [*reversed(numbers), None, None]
    if x and y and _count(settings)(y) > 2:
        groups = _group(settings, [key for key in keys if key not in (x, y)])
        cells = _count(settings)(x) * _count(settings)(y) * len(groups)
        panels: Groups = groups if cells <= 2 * len(settings) else dict.fromkeys(keys, settings)
        figure = Figure(figsize=(5 * len(panels), 4.5), layout="constrained")
        axes = figure.subplots(1, len(panels), squeeze=False)
        means = [setting.mean(setting.selected_by) for setting in settings]
        finite = [mean for mean in means if not math.isnan(mean)] or [0.0]
        limits = min(finite), max(finite)
        for axis, (name, group) in zip(axes[0], panels.items(), strict=True):
            if panels is groups:
                _heat_map(axis, name, group, x, y, limits)
            else:
                _line(axis, settings, name, linestyle="none")
    else:
        figure = Figure(figsize=(9, 4.5), layout="constrained")
        axis = figure.subplots()
        over = x or next(iter(keys), None)
        groups = _group(settings, [key for key in keys if key != over])
        for name, group in groups.items():
            _line(axis, group, over, label=name, linestyle="-" if x else "none")
        if len(groups) > 1:
            axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    with write_file(path, "wb") as file:
        figure.savefig(file, dpi=110, format="png")


def _line(axis: Any, settings: Sequence[Setting], key: str | None, **style: Any) -> None:
    """Mean and standard error over one key, as names unless all its values are numbers."""
    points = [(_value(setting.values[key]) if key else "all", setting) for setting in settings]
    if any(isinstance(value, str) for value, _ in points):
        # Names stay in the order of the settings, best first.
        points = [(str(value), setting) for value, setting in points]
        axis.tick_params(axis="x", rotation=30)
    else:
        points.sort(key=lambda point: point[0])
    # The error of a single seed is NaN, which draws no bar.
    axis.errorbar(
        [value for value, _ in points],
        [setting.mean(setting.selected_by) for _, setting in points],
        yerr=[setting.error(setting.selected_by) for _, setting in points],
        marker="o",
        capsize=3,
        **style,
    )
    axis.set(xlabel=key or "", ylabel=_label(settings))
    axis.grid(alpha=0.3)


def _heat_map(
    axis: Any,
    name: str,
    settings: Sequence[Setting],
    x: str,
    y: str,
    limits: tuple[float, float],
) -> None:
    """Means over two keys; all panels have the same colour limits."""
    columns, rows = (sorted({float(s.values[key]) for s in settings}) for key in (x, y))
    cells = [[math.nan] * len(columns) for _ in rows]
    for setting in settings:
        column = columns.index(float(setting.values[x]))
        row = rows.index(float(setting.values[y]))
        cells[row][column] = setting.mean(setting.selected_by)
    low, high = limits
    image = axis.imshow(cells, origin="lower", aspect="auto", cmap="viridis", vmin=low, vmax=high)
    for row, values in enumerate(cells):
        for column, value in enumerate(values):
            if not math.isnan(value):
                # White text is illegible on the bright yellow of high values.
                color = "w" if image.norm(value) < 0.7 else "k"
                axis.text(column, row, f"{value:.1f}", ha="center", va="center", color=color)
    axis.figure.colorbar(image, ax=axis, label=_label(settings))
    axis.set(xlabel=x, ylabel=y, title=name)
    axis.set_xticks(range(len(columns)), [f"{value:g}" for value in columns])
    axis.set_yticks(range(len(rows)), [f"{value:g}" for value in rows])


def _label(settings: Sequence[Setting]) -> str:
    """The metric, with its unit if it is a bound."""
    name = settings[0].selected_by
    return f"{name} (nats per image)" if name.endswith(("elbo", "bound")) else name


def _group(settings: Sequence[Setting], keys: Sequence[str]) -> dict[str, list[Setting]]:
    """Groups settings by their values of some keys; these values name the group."""
    groups: dict[str, list[Setting]] = {}
    for setting in sorted(settings, key=lambda s: [s.values[key] for key in keys]):
        name = "\n".join(f"{key}={setting.values[key]}" for key in keys)
        groups.setdefault(name, []).append(setting)
    return groups


def _count(settings: Sequence[Setting]) -> Any:
    """A function that counts the different values of a key."""
    return lambda key: len({setting.values[key] for setting in settings})


def _numbers(settings: Sequence[Setting], key: str) -> bool:
    return not any(isinstance(_value(setting.values[key]), str) for setting in settings)


def _value(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
