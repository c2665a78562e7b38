"""Groups runs into settings and ranks these by validation, never by test."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from dvae.errors import UserError
from dvae.runs.results import Run

__all__ = ["Setting", "best_of", "rank", "score", "swept_keys"]


@dataclass(frozen=True)
class Setting:
    """Finished runs that differ only in their seeds.

    Attributes:
        values: Swept key → value, as text.
        runs: The runs, best first.
    """

    values: dict[str, str]
    runs: list[Run]

    @property
    def selected_by(self) -> str:
        """The metric that settings are ranked by."""
        return self.runs[0].selected_by

    def mean(self, metric: str) -> float:
        """Mean of a metric over seeds; NaN if a run did not measure it."""
        return fmean(run.metrics.get(metric, math.nan) for run in self.runs)

    def error(self, metric: str) -> float:
        """Standard error of the mean over seeds; NaN for a single seed."""
        return _error([run.metrics.get(metric, math.nan) for run in self.runs])

    def behind(self, best: "Setting") -> tuple[float, float]:
        """How much worse the setting is than the best one: the mean of best_s − own_s over seeds s.

        What a seed changes in both settings alike drops out of the differences, so their standard
        error can be much smaller than that of either mean.

        Args:
            best: The other setting; the seeds that both have are compared.

        Returns:
            Mean and standard error of the differences, in units of the metric that settings are
            ranked by. Both are NaN if no seed is shared, and the error for a single one.
        """
        own, others = (
            {run.seed: run.metrics.get(run.selected_by, math.nan) for run in setting.runs}
            for setting in (self, best)
        )
        differences = [others[seed] - own[seed] for seed in own.keys() & others.keys()]
        return (fmean(differences) if differences else math.nan), _error(differences)


def _error(values: Sequence[float]) -> float:
    return stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan


def swept_keys(runs: Sequence[Run]) -> list[str]:
    """The keys whose values differ between runs, without the seed."""
    keys = dict.fromkeys(key for run in runs for key in run.overrides)
    return [key for key in keys if len({run.overrides.get(key) for run in runs}) > 1]


def rank(runs: Sequence[Run]) -> list[Setting]:
    """Settings by their mean of the metric, best first; settings without the metric come last."""
    keys = swept_keys(runs)
    groups: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        if run.state == "finished":
            groups.setdefault(tuple(run.overrides.get(key, "") for key in keys), []).append(run)
    settings = [
        Setting(dict(zip(keys, values, strict=True)), sorted(group, key=score, reverse=True))
        for values, group in groups.items()
    ]
    return sorted(settings, key=lambda setting: score(setting.runs[0], setting), reverse=True)


def score(run: Run, setting: Setting | None = None) -> float:
    """The metric that ranks a run, or the setting that it belongs to; −∞ if not measured."""
    own = run.metrics.get(run.selected_by, math.nan)
    value = setting.mean(run.selected_by) if setting else own
    return -math.inf if math.isnan(value) else value


def best_of(settings: Sequence[Setting], key: str) -> list[Setting]:
    """The best setting for each value of a key, best first.

    Args:
        settings: Settings, best first.
        key: One of the swept keys.

    Raises:
        UserError: If the key was not swept.
    """
    if settings and key not in settings[0].values:
        swept = ", ".join(settings[0].values) or "none"
        raise UserError(f"--best-of: expected a swept key, one of {swept}, found {key}")
    best: dict[str, Setting] = {}
    for setting in settings:
        best.setdefault(setting.values[key], setting)
    return list(best.values())
