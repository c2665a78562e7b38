"""A Hydra sweeper that searches with Optuna: `hydra/sweeper=optuna`.

Hydra imports every plugin at each start, so Optuna itself is imported later.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, Transformer
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from dvae.errors import UserError, install_command
from dvae.runs.folder import FINAL
from dvae.runs.results import find_runs

__all__ = ["OptunaSweeper"]


class OptunaSweeper(Sweeper):
    """Maximizes the value that the task returns; the search space has Hydra's syntax for sweeps.

    The study is stored in a database. A resumed search starts interrupted trials again with the
    same values; trials that have ended are not repeated.

    Args:
        storage: URL of the database.
        trials: Total number of trials.
        batch: Trials that are launched together.
        startup_trials: Trials that are drawn at random; no trial is pruned before this many have
            finished.
        warmup_epochs: Epochs before a trial can be pruned.
        seed: Seed of the search.
        params: Key → values; the command line overrides them.
    """

    def __init__(
        self,
        storage: str,
        trials: int,
        batch: int,
        startup_trials: int,
        warmup_epochs: int,
        seed: int,
        params: dict[str, Any],
    ) -> None:
        self.storage = storage
        self.trials = trials
        self.batch = batch
        self.startup_trials = startup_trials
        self.warmup_epochs = warmup_epochs
        self.seed = seed
        self.params = params
        self.launcher: Launcher | None = None

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Creates the launcher."""
        self.config = config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Runs trials until the study has `trials` of them."""
        try:
            import optuna
        except ModuleNotFoundError as error:
            raise UserError(
                "hydra/sweeper=optuna: expected the extra optuna, found none; "
                f"{install_command('optuna')}"
            ) from error
        if self.launcher is None or self.config is None:
            raise ValueError("sweep: expected a call of setup() before sweep(), found none")
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        Path(self.config.hydra.sweep.dir).mkdir(parents=True, exist_ok=True)
        fixed, space = self._space(arguments)
        study = optuna.create_study(
            study_name="sweep",
            storage=self.storage,
            load_if_exists=True,
            direction="maximize",
            pruner=optuna.pruners.MedianPruner(self.startup_trials, self.warmup_epochs),
        )
        # With the same seed, a resumed search would draw its first values again.
        study.sampler = optuna.samplers.TPESampler(
            n_startup_trials=self.startup_trials, seed=self.seed + len(study.trials)
        )
        cut_off = study.get_trials(states=[optuna.trial.TrialState.RUNNING])
        waiting = [optuna.trial.Trial(study, trial._trial_id) for trial in cut_off]
        number = ended = len(study.trials) - len(waiting)
        while ended < self.trials:
            size = min(self.batch, self.trials - ended)
            while len(waiting) < size:
                waiting.append(study.ask(space))
            trials, waiting = waiting[:size], waiting[size:]
            jobs = [self._job(trial, fixed) for trial in trials]
            returns = self.launcher.launch(jobs, initial_job_idx=number)
            for trial, job in zip(trials, returns, strict=True):
                _tell(study, trial, job)
            number += size
            ended += size

    def _space(self, arguments: list[str]) -> tuple[list[str], dict[str, Any]]:
        """Overrides that all trials share, and a distribution for each key that is searched."""
        texts = [f"{key}={value}" for key, value in self.params.items()] + arguments
        overrides = OverridesParser.create().parse_overrides(texts)
        last = {override.get_key_element(): override for override in overrides}
        fixed = [str(o.input_line) for o in last.values() if not o.is_sweep_override()]
        space = {key: _distribution(o) for key, o in last.items() if o.is_sweep_override()}
        if not space:
            raise UserError("hydra.sweeper.params: expected a key to search over, found none")
        return fixed, space

    def _job(self, trial: Any, fixed: list[str]) -> Sequence[str]:
        drawn = [f"{key}={_text(value)}" for key, value in trial.params.items()]
        # These variables let the run report to its trial from any process.
        about = {"DVAE_STUDY": self.storage, "DVAE_TRIAL": trial._trial_id}
        return [*drawn, *fixed, *(f"++hydra.job.env_set.{k}='{v}'" for k, v in about.items())]


def _distribution(override: Override) -> Any:
    """Optuna's counterpart of a sweep in Hydra's syntax."""
    from optuna import distributions

    value = override.value()
    if not isinstance(value, IntervalSweep):
        return distributions.CategoricalDistribution(_choices(override))
    low: Any = value.start
    high: Any = value.end
    whole = isinstance(low, int) and isinstance(high, int)
    kind = distributions.IntDistribution if whole else distributions.FloatDistribution
    try:
        return kind(low, high, log="log" in value.tags)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{override.get_key_element()}: expected an interval from a smaller to a larger "
            f"number, above 0 if it is logarithmic, found {override.input_line}"
        ) from error


def _choices(override: Override) -> list[str]:
    """The values of a choice or a range, as text.

    Beside fractions, 0 and 1 are fractions too: `choice(0.5,1)` hands on 1.0, not a count of one.
    """
    values: list[Any] = list(override.sweep_iterator())
    numbers = [value for value in values if type(value) in (int, float)]
    if any(type(value) is float for value in numbers) and all(0 <= n <= 1 for n in numbers):
        values = [float(value) if type(value) is int else value for value in values]
    return [Transformer.str(value) for value in values]


def _text(value: Any) -> str:
    """A drawn value for the command line, with four digits to keep folder names short.

    A float keeps a decimal point: 1.0 may be the whole run, and 1 a step.
    """
    if not isinstance(value, float):
        return str(value)
    text = f"{value:.4g}"
    return text if set(text) & set(".en") else f"{text}.0"


def _tell(study: Any, trial: Any, job: JobReturn) -> None:
    """Reports the result of a run to its trial.

    A diverged run counts as pruned, so that the search avoids its values. A failed run says nothing
    about its values.
    """
    from optuna.trial import TrialState

    value = job.return_value
    if value is None:
        raise UserError("data.validation: expected at least 1 image in a search, found 0")
    if not math.isnan(value):
        study.tell(trial, value)
        return
    if job.hydra_cfg is None:
        raise ValueError("launcher: expected the configuration of a job, found none")
    [run] = find_runs(Path(job.hydra_cfg.hydra.runtime.output_dir))
    study.tell(trial, state=TrialState.PRUNED if run.state in FINAL else TrialState.FAIL)
