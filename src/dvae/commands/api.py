"""The program from Python: `dvae.compose`, `dvae.train` and `dvae.load`."""

import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from dvae.errors import UserError
from dvae.training.config import RunConfig

if TYPE_CHECKING:
    from dvae.training.module import TaskModule

__all__ = ["compose", "load", "train"]


def compose(overrides: Sequence[str] = ()) -> RunConfig:
    """The configuration of a run, composed and checked as by `dvae train`.

    Args:
        overrides: `group=option` and `key=value`, as on the command line; also `resume=…`, and
            `hydra.searchpath=[file://FOLDER]` for configurations of your own.

    Returns:
        The configuration, for `dvae.train`. Its run has the folder `config.paths.output_dir`, a new
        one unless an override names it. To change a value, compose again.

    Raises:
        UserError: One line that names the wrong key, what was expected and what was found.

    Example:
        >>> config = compose(["model.num_latents=10", "trainer.max_epochs=2"])
        >>> config.model.num_latents, config.optimizer.name
        (10, 'adamw')
    """
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    from dvae.commands import cli
    from dvae.commands.checking import check
    from dvae.commands.places import home
    from dvae.runs.resume import resumed

    given = list(overrides)
    if isinstance(overrides, str) or not all(isinstance(item, str) for item in given):
        raise UserError(f'overrides: expected a list such as ["seed=1"], found {overrides!r}')
    with _arguments(given):
        try:
            given = resumed(given, home() / "outputs" / "runs", cli.folders())
            config = check(RunConfig, cli.compose("train", given))
        except UserError:
            raise
        except (HydraException, OmegaConfBaseException, OSError, YAMLError, ValueError) as error:
            raise UserError(" ".join(cli.explain(error, "train").split())) from error
    config._overrides = tuple(item for item in given if not item.lstrip("+~").startswith("hydra"))
    return config


def train(config: RunConfig) -> dict[str, float]:
    """Trains one configuration and tests the result, as `dvae train` does.

    Writes the same files into the run's folder. If the folder holds the interrupted run of the same
    configuration, training continues there; a finished run is not repeated. An interrupt (the stop
    button of a notebook) saves a checkpoint first.

    The process is left as it was: random states, warnings, logging, environment variables, signal
    handlers, matplotlib's backend and torch's settings.

    Args:
        config: What `dvae.compose` returned.

    Returns:
        Metrics of the best checkpoint, such as `test/elbo`, in nats per image unless the table that
        is printed says otherwise.

    Raises:
        UserError: If an input is wrong, or the run has diverged.
    """
    import rich

    from dvae.runs.files import read_json
    from dvae.runs.folder import run_in_folder

    if not isinstance(config, RunConfig):
        raise UserError(f"config: expected what dvae.compose returns, found {config!r}")
    if config.trainer.devices != 1:
        raise UserError(
            "trainer.devices: expected 1 in Python, found "
            f"{config.trainer.devices}; `dvae train` starts several processes"
        )
    if rich.get_console().is_jupyter and find_spec("ipywidgets") is None:
        # In such a notebook, rich draws no progress bar, but warns.
        trainer = config.trainer.model_copy(update={"progress_bar": False})
        config = config.model_copy(update={"trainer": trainer})
    metrics: dict[str, float] = {}

    def work(config: RunConfig) -> dict[str, float]:
        from dvae.commands.train import train
        from dvae.training.devices import tune_torch

        tune_torch()
        metrics.update(train(config))
        return metrics

    with _restored():
        try:
            run_in_folder(config, work)
        except SystemExit as error:
            interrupted = isinstance(error.__context__, KeyboardInterrupt)
            if interrupted or error.code == 128 + signal.SIGINT:
                raise KeyboardInterrupt from None
            raise
    folder = Path(config.paths.output_dir)
    # A finished run is not repeated.
    metrics = metrics or read_json(folder / "metrics.json")
    if not metrics:
        state = read_json(folder / "status.json").get("state")
        raise UserError(f"{folder}: expected a run that can be trained, found one that is {state}")
    return metrics


def load(path: str | os.PathLike[str]) -> "TaskModule":
    """Loads a trained model, in evaluation mode on the CPU, without running code from the file.

    A model of the task `vae` has the methods `encode` (images → codes), `decode` (codes → images),
    `sample` (images from the prior) and `reconstruct`, see
    `dvae.tasks.vae.inference.VAEInference`; it is moved with `.to("cuda")`. Models of other tasks
    are loaded alike and have their own uses: `model.best_actions(observations)` (`policy`),
    `model.model.classify(images)` (`semi_supervised`), `model.network(upper, lower)`
    (`structured_prediction`).

    Args:
        path: A checkpoint, or the folder of a run: its best checkpoint, or the last one if the run
            has no validation.

    Raises:
        UserError: If there is no checkpoint, or it is not one of this program.
    """
    from pytorch_lightning.utilities.seed import isolate_rng

    from dvae.tasks.loading import load_module

    given = Path(path).expanduser()
    names = ("best.ckpt", "last.ckpt")
    files = [given / "checkpoints" / name for name in names] if given.is_dir() else [given]
    checkpoint = next((file for file in files if file.is_file()), None)
    if checkpoint is None:
        found = "a folder without one" if given.is_dir() else "nothing"
        raise UserError(
            f"path: expected a checkpoint or the folder of a run, found {found}: {path}"
        )
    # New weights are drawn, then replaced by those of the file.
    with isolate_rng():
        return load_module(checkpoint)[0]


@contextmanager
def _arguments(overrides: Sequence[str]) -> Iterator[None]:
    """Lets the command line's code read these overrides instead of the arguments of the process."""
    before = sys.argv
    sys.argv = ["dvae", *overrides]
    try:
        yield
    finally:
        sys.argv = before


@contextmanager
def _restored() -> Iterator[None]:
    """Gives training the settings of a new process, and restores those of this one."""
    import rich
    import torch._dynamo
    from pytorch_lightning.utilities.seed import isolate_rng

    from dvae.commands.own_hydra import own_hydra
    from dvae.commands.quiet import LEVELS

    levels = {name: logging.getLogger(name).level for name in LEVELS}
    environment = dict(os.environ)
    in_main = threading.current_thread() is threading.main_thread()
    signals = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)} if in_main else {}
    # Lightning's progress bar replaces the content of rich's console.
    console = rich.get_console().__dict__
    flushed, dtype = sys.float_info.min / 2 == 0, torch.get_default_dtype()
    compiler = torch._dynamo.config
    settings = ("recompile_limit", "trace_autograd_ops")
    unchanged = {name: getattr(compiler, name) for name in settings if hasattr(compiler, name)}
    # Torch's threads start here, so that they do not inherit the flushing of denormal numbers.
    torch.ones(2**16 * torch.get_num_threads())
    try:
        torch.set_default_dtype(torch.float32)
        with (
            own_hydra(),
            isolate_rng(),
            warnings.catch_warnings(),
            torch.inference_mode(False),
            torch.enable_grad(),
            compiler.patch(unchanged),
        ):
            yield
    finally:
        torch.set_default_dtype(dtype)
        torch.set_flush_denormal(flushed)
        rich.get_console().__dict__ = console
        for number, handler in signals.items():
            signal.signal(number, handler)
        for name in os.environ.keys() - environment.keys():
            del os.environ[name]
        os.environ.update(environment)
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
