"""A Hydra launcher for several jobs at once on this machine: `hydra/launcher=joblib`.

Hydra imports every plugin at each start, so joblib itself is imported later.
"""

import logging
import math
import os
import queue
import re
import signal
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import (
    JobReturn,
    JobStatus,
    configure_log,
    filter_overrides,
    run_job,
    setup_globals,
)
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from dvae.errors import UserError
from dvae.runs.files import read_json
from dvae.runs.folder import record

__all__ = ["JoblibLauncher"]

_LOG = logging.getLogger(__name__)
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
_REFUSED = 2
"""Exit code of a job that has refused to write into the folder of another run."""


class JoblibLauncher(Launcher):
    """Runs jobs in processes that are independent of each other.

    If a process is killed, such as for want of memory, its job is recorded as failed, and the other
    jobs continue. The pools of joblib would end with the first of their processes.

    Args:
        n_jobs: Jobs at a time; -1 for as many as there are cores.
    """

    def __init__(self, n_jobs: int) -> None:
        self.n_jobs = n_jobs

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Keeps what jobs need."""
        self.hydra_context, self.task_function = hydra_context, task_function
        self.config: DictConfig = config

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Runs jobs and waits for them.

        Raises:
            UserError: If joblib is not installed, or the number of jobs is wrong.
            SystemExit: If a signal ends the sweep, or a job refuses its folder.
        """
        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        count = min(self._count(), len(job_overrides))
        _LOG.info("Launching %d jobs, %d at a time", len(job_overrides), count)
        workers = [_Worker(count) for _ in range(count)]
        idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        for worker in workers:
            idle.put(worker)
        state = Singleton.get_state()

        def run(index: int, overrides: Sequence[str]) -> JobReturn:
            worker = idle.get()
            try:
                _LOG.info("\t#%d : %s", index, " ".join(filter_overrides(overrides)))
                about = (self.hydra_context, self.config, self.task_function, state)
                return worker.run(_run_job, index, list(overrides), *about)
            finally:
                idle.put(worker)

        jobs = dict(enumerate(job_overrides, initial_job_idx))
        returns: dict[int, JobReturn] = {}
        threads = ThreadPoolExecutor(count)
        try:
            numbers = {threads.submit(run, *job): job[0] for job in jobs.items()}
            for future in as_completed(numbers):
                index = numbers[future]
                returns[index] = self._result(future, index, jobs[index])
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            # Runs save a checkpoint on SIGTERM.
            for worker in workers:
                worker.terminate()
            raise
        finally:
            threads.shutdown()
            for worker in workers:
                worker.close()
        return [returns[index] for index in jobs]

    def _count(self) -> int:
        try:
            from joblib import effective_n_jobs
        except ModuleNotFoundError as error:
            raise UserError(
                "hydra/launcher=joblib: expected the extra joblib, found none; "
                'pip install -e ".[joblib]"'
            ) from error
        if type(self.n_jobs) is not int or self.n_jobs == 0:
            raise UserError(
                "hydra.launcher.n_jobs: expected a number of jobs, or -1 for one on each core, "
                f"found {self.n_jobs}"
            )
        return effective_n_jobs(self.n_jobs)

    def _result(
        self, future: "Future[JobReturn]", index: int, overrides: Sequence[str]
    ) -> JobReturn:
        """What a job returned; NaN for a job whose process was killed or ended by a signal."""
        try:
            return future.result()
        except (_KilledError, SystemExit) as error:
            if isinstance(error, SystemExit) and error.code == _REFUSED:
                raise
            return self._lost(error, index, overrides)

    def _lost(self, error: BaseException, index: int, overrides: Sequence[str]) -> JobReturn:
        config = _compose(self.hydra_context, self.config, index, overrides)
        folder = Path(config.hydra.sweep.dir, str(config.hydra.sweep.subdir)).absolute()
        if read_json(folder / "status.json").get("state", "running") == "running":
            _LOG.error("%s: %s", folder.name, record(folder, error))
        with open_dict(config.hydra.runtime):
            config.hydra.runtime.output_dir = str(folder)
        result = JobReturn(list(overrides), hydra_cfg=config, status=JobStatus.COMPLETED)
        result.return_value = math.nan
        return result


class _KilledError(UserError):
    """The process of a job has ended without a result."""


class _Worker:
    """A process that runs one job after another; a new one takes its place if it is killed.

    Args:
        count: The number of workers, which share the cores.
    """

    def __init__(self, count: int) -> None:
        from joblib import cpu_count

        share = str(max(1, cpu_count() // count))
        self.environment = {name: share for name in _THREADS if name not in os.environ}
        self.pool: Any = None
        self.pid: int | None = None

    def run(self, function: Any, *arguments: Any) -> Any:
        """Calls a function in the process."""
        from joblib.externals.loky import BrokenProcessPool, ProcessPoolExecutor

        try:
            if self.pool is None:
                self.pool = ProcessPoolExecutor(1, env=self.environment)
            self.pid = self.pool.submit(os.getpid).result()
            return self.pool.submit(function, *arguments).result()
        except BrokenProcessPool as error:
            self.close()
            code = re.search(r"\{(\w+)", str(error))
            raise _KilledError(
                f"the process has died ({code.group(1) if code else 'unknown cause'}); "
                "if memory was short, reduce hydra.launcher.n_jobs"
            ) from error
        finally:
            self.pid = None

    def terminate(self) -> None:
        """Asks the process to end."""
        if self.pid is not None:
            with suppress(OSError):
                os.kill(self.pid, signal.SIGTERM)

    def close(self) -> None:
        """Ends the process, which has no job any more."""
        if self.pool is not None:
            self.pool.shutdown()
        self.pool = None


def _run_job(
    index: int,
    overrides: Sequence[str],
    context: HydraContext,
    config: DictConfig,
    task: TaskFunction,
    state: dict[Any, Any],
) -> JobReturn:
    """Runs a job in the process of a worker."""
    setup_globals()
    Singleton.set_state(state)
    job = _compose(context, config, index, overrides)
    HydraConfig.instance().set_config(job)
    return run_job(
        hydra_context=context,
        config=job,
        task_function=task,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )


def _compose(
    context: HydraContext, config: DictConfig, index: int, overrides: Sequence[str]
) -> DictConfig:
    """The configuration of a job, from that of the sweep."""
    job = context.config_loader.load_sweep_config(config, list(overrides))
    with open_dict(job):
        job.hydra.job.id = f"{job.hydra.job.name}_{index}"
        job.hydra.job.num = index
    return job
