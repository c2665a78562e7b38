"""Trains a model: configuration → metrics, and the files of the run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from omegaconf import OmegaConf
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import TensorBoardLogger
from rich.console import Console

from dvae.commands.quiet import quiet
from dvae.commands.report import metrics_table
from dvae.data.base import TaskData
from dvae.errors import UserError
from dvae.files import write_file, write_json
from dvae.options import Options
from dvae.runs.folder import is_first_process
from dvae.runs.provenance import provenance
from dvae.runs.summary import watch
from dvae.tasks import find_task
from dvae.training.averaging import AveragedWeights
from dvae.training.callbacks import Concerns, Pictures
from dvae.training.checkpoints import CheckpointFiles, check_resumable, load_checkpoint
from dvae.training.compilation import compiler_errors, prepare_compilation
from dvae.training.config import RunConfig
from dvae.training.devices import describe_device, resolve_device
from dvae.training.fast import Speed, choose_speed
from dvae.training.module import TaskModule
from dvae.training.pictures import save_image
from dvae.training.processes import SharedBuffers, check_processes
from dvae.training.progress import ProgressBar, progress
from dvae.training.resilience import BestCheckpoint, Finite, LastCheckpoint, Patience, Pruning
from dvae.training.terminal import say

__all__ = ["train"]

_PRECISION: dict[int | str, Any] = {
    16: "16-mixed",
    32: "32-true",
    64: "64-true",
    "bf16": "bf16-mixed",
}


def train(config: RunConfig, callbacks: Sequence[Callback] = ()) -> dict[str, float]:
    """Trains one configuration and tests the best checkpoint, or the last without validation.

    Writes to `config.paths.output_dir`: the resolved configuration, checkpoints, TensorBoard
    events, `metrics.json` and the task's pictures.

    Args:
        config: The configuration.
        callbacks: Additional Lightning callbacks.

    Returns:
        Test metrics of that checkpoint, and the validation metric that selected it.

    Raises:
        UserError: If an input is wrong.
    """
    quiet()
    device = resolve_device(config.trainer.accelerator, "trainer.accelerator")
    if is_first_process():
        say(describe_device(config.trainer.accelerator, config.trainer.devices))
    output = Path(config.paths.output_dir)
    output.mkdir(parents=True, exist_ok=True)
    pl.seed_everything(config.seed, verbose=False)
    task = find_task(config.task)
    data = task.data(config)
    data.prepare_data()
    module = task.module(config, data)
    total_steps = data.steps_per_epoch() * config.trainer.max_epochs
    speed = choose_speed(config, total_steps)
    last, monitor = output / "checkpoints" / "last.ckpt", task.selected_by
    best = BestCheckpoint(last.with_name("best.ckpt"), monitor) if data.validates else None
    # Save the best checkpoint first, so that a crash between the two saves keeps its score.
    keep: list[Callback] = [best] if best else []
    keep.append(LastCheckpoint(last, config.trainer.save_every))
    before = {} if config.resume is None else load_checkpoint(config.resume, "resume")
    keep += Pruning.from_environment(monitor) if data.validates else []
    others = [*task.callbacks(config), _Provenance(config, speed), *keep, *callbacks]
    start = before.get("global_step")
    trainer = _build_trainer(config, device.type, speed, monitor, data, others, start)
    remarks = [*([f"fast: {speed.reason}"] if speed.reason else []), *config.remarks(total_steps)]
    for line in remarks if trainer.is_global_zero else ():
        say(line)
    if config.resume is not None:
        check_resumable(before, config.resume, trainer, module, total_steps)
        if best is not None and is_first_process():
            _copy_best(Path(config.resume).with_name(best.path.name), best.path)
    if speed.compile:
        prepare_compilation(device)
        if trainer.is_global_zero:
            say("compile: the first step waits until torch has compiled the training pass")
        alone = trainer.world_size == 1
        module.compile_training(device, backward=alone and speed.precision != 16)
    with compiler_errors():
        trainer.fit(module, datamodule=data, ckpt_path=config.resume, weights_only=True)
    checkpoint = last if best is None else best.path
    results = trainer.test(
        module, datamodule=data, ckpt_path=checkpoint, weights_only=True, verbose=False
    )[0]
    metrics = dict(results)
    if best is not None and best.best_model_score is not None:
        metrics = {monitor: float(best.best_model_score)} | metrics
    if not trainer.is_global_zero:
        return metrics
    # Prefix the names: these values belong to a checkpoint, not to the end of the run's curves.
    final = {f"{checkpoint.stem}/{name}": value for name, value in metrics.items()}
    how = "last checkpoint" if best is None else f"best checkpoint, by {monitor}"
    # Before the files, so that a disk that is full by now does not take the result.
    Console(markup=False).print(metrics_table(f"Metrics of the {how}", metrics, module.units))
    _log_hyperparameters(trainer, config, final)
    write_json(output / "metrics.json", metrics)
    pictures = _save_pictures(module, data, output)
    rows = {"run": output, f"{checkpoint.stem} checkpoint": checkpoint, **pictures}
    validations = config.trainer.max_epochs // config.trainer.validate_every
    for name, row in (rows | {"watch": watch(output, validations)}).items():
        Console(markup=False).print(f"{name:>16}  {row}", soft_wrap=True, highlight=False)
    return metrics


class _Provenance(Callback):
    """Writes configuration and environment when training starts.

    If a run is refused before that, the folder keeps the files of the run in it.
    """

    def __init__(self, config: RunConfig, speed: Speed) -> None:
        self._config = config
        self._speed = speed

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Writes `config.yaml` and `environment.json`."""
        if trainer.is_global_zero:
            output = Path(self._config.paths.output_dir)
            with write_file(output / "config.yaml") as file:
                file.write(OmegaConf.to_yaml(self._config.model_dump()))
            speed = {"compile": self._speed.compile, "precision": self._speed.precision}
            write_json(output / "environment.json", provenance(self._config.overrides) | speed)


class _Board(TensorBoardLogger):
    """Writes into the folder of the run, also if its name looks like a variable, such as $HOME."""

    @property
    def log_dir(self) -> str:
        """The folder; Lightning would replace variables in it."""
        return self.save_dir


def _build_trainer(
    config: RunConfig,
    accelerator: str,
    speed: Speed,
    monitor: str,
    data: TaskData,
    others: Sequence[Callback],
    start: int | None,
) -> pl.Trainer:
    options, output = config.trainer, config.paths.output_dir
    callbacks: list[Callback] = [Finite(monitor), Concerns()]
    if config.callbacks.pictures:
        callbacks.append(Pictures())
    if options.average is not None:
        # After the pictures, which show the averages too.
        callbacks.append(AveragedWeights(options.average))
    if config.callbacks.early_stopping is not None:
        callbacks.append(Patience(monitor, mode="max", patience=config.callbacks.early_stopping))
    shown = progress(monitor, Path(output).name) if options.progress_bar else None
    callbacks += [*([shown] if shown else []), *others]
    try:
        trainer = pl.Trainer(
            accelerator=accelerator,
            devices=options.devices,
            max_epochs=options.max_epochs,
            precision=_PRECISION[speed.precision],
            log_every_n_steps=1,
            check_val_every_n_epoch=options.validate_every,
            enable_progress_bar=isinstance(shown, ProgressBar),
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            callbacks=callbacks,
            plugins=CheckpointFiles(),
            default_root_dir=output,
            logger=_Board(
                output,
                name="",
                version="",
                default_hp_metric=False,
                # A resumed run writes the events after its checkpoint again.
                purge_step=start + 1 if isinstance(start, int) else None,
            ),
        )
    except pl.utilities.exceptions.MisconfigurationException as error:
        raise UserError(
            f"trainer.devices: expected devices of the kind {accelerator} that this machine has, "
            f"found {options.devices} ({error})"
        ) from error
    if trainer.world_size > 1:
        check_processes(config)
        data.check_processes(trainer.world_size)
        trainer.callbacks.append(SharedBuffers())  # type: ignore[attr-defined]
    return trainer


def _copy_best(source: Path, target: Path) -> None:
    """Copies the best checkpoint of the resumed run, unless the folder already has one."""
    if source.is_file() and not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        with write_file(target, "wb") as file:
            file.write(source.read_bytes())


def _log_hyperparameters(
    trainer: pl.Trainer, config: RunConfig, metrics: Mapping[str, float]
) -> None:
    """Logs the settings that affect the result to TensorBoard's HParams tab."""
    values: dict[str, Any] = {"task": config.task}
    shared = {*RunConfig.model_fields, "test_samples"}
    for group, options in config:
        if not isinstance(options, Options):
            # Options that a task has beside its groups.
            values |= {} if group in shared else {group: options}
            continue
        if group in ("trainer", "callbacks", "paths"):
            continue
        for key, value in options.model_dump(exclude={"eval_batch_size"}).items():
            name = group if key == "name" else f"{group}.{key}"
            values[name] = value if isinstance(value, int | float | str) else str(value)
    values |= {"epochs": config.trainer.max_epochs, "seed": config.seed}
    if isinstance(trainer.logger, TensorBoardLogger):
        trainer.logger.log_hyperparams(values, dict(metrics), trainer.global_step)
        # Close the file, which has a thread of its own.
        trainer.logger.finalize("success")


def _save_pictures(module: TaskModule, data: TaskData, output: Path) -> dict[str, Path]:
    module.eval()
    paths = {}
    for name, picture in module.pictures(data, "test", seed=0).items():
        paths[name] = output / f"{name}.png"
        save_image(picture, paths[name])
    return paths
