"""Trains a model: configuration → metrics, and the files of the run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import TensorBoardLogger
from rich.console import Console

from dvae.commands.report import metrics_table
from dvae.data.base import TaskData
from dvae.errors import UserError
from dvae.files import write_file, write_json
from dvae.options import Options
from dvae.runs.folder import is_first_process
from dvae.runs.provenance import provenance
from dvae.tasks import find_task
from dvae.training.averaging import AveragedWeights
from dvae.training.callbacks import Concerns, Pictures, ProgressBar, quiet
from dvae.training.checkpoints import CheckpointFiles, check_resumable, load_checkpoint
from dvae.training.config import RunConfig
from dvae.training.devices import tune_process
from dvae.training.fast import Speed, choose_speed
from dvae.training.module import TaskModule
from dvae.training.pictures import save_image
from dvae.training.processes import SharedBuffers, check_processes
from dvae.training.resilience import BestCheckpoint, Finite, LastCheckpoint, Patience, Pruning

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
    tune_process()
    output = Path(config.paths.output_dir)
    output.mkdir(parents=True, exist_ok=True)
    pl.seed_everything(config.seed, verbose=False)
    task = find_task(config.task)
    data = task.data(config)
    data.prepare_data()
    module = task.module(config, data)
    speed = choose_speed(config, data.steps_per_epoch() * config.trainer.max_epochs)
    last, monitor = output / "checkpoints" / "last.ckpt", task.selected_by
    best = BestCheckpoint(last.with_name("best.ckpt"), monitor) if data.validates else None
    # Save the best checkpoint first, so that a crash between the two saves keeps its score.
    keep: list[Callback] = [best] if best else []
    keep.append(LastCheckpoint(last, config.trainer.save_every))
    before = {} if config.resume is None else load_checkpoint(config.resume, "resume")
    keep += Pruning.from_environment(monitor) if data.validates else []
    others = [*task.callbacks(config), _Provenance(config, speed), *keep, *callbacks]
    trainer = _build_trainer(config, speed, monitor, data, others, before.get("global_step"))
    if speed.reason and trainer.is_global_zero:
        Console().print(f"fast: {speed.reason}", soft_wrap=True, highlight=False)
    if config.resume is not None:
        check_resumable(before, config.resume, trainer, module)
        if best is not None and is_first_process():
            _copy_best(Path(config.resume).with_name(best.path.name), best.path)
    if speed.compile:
        module.compile_training(backward=trainer.world_size == 1 and speed.precision != 16)
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
    _log_hyperparameters(trainer, config, final)
    write_json(output / "metrics.json", metrics)
    pictures = _save_pictures(module, data, output)
    how = "last checkpoint" if best is None else f"best checkpoint, by {monitor}"
    Console().print(metrics_table(f"Metrics of the {how}", metrics, module.units))
    _report(output, checkpoint, pictures)
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
            write_json(output / "environment.json", provenance() | speed)


def _build_trainer(
    config: RunConfig,
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
    bar = options.progress_bar and not _runs_in_parallel()
    if bar:
        callbacks.append(ProgressBar(monitor))
    callbacks += others
    try:
        trainer = pl.Trainer(
            accelerator=options.accelerator,
            devices=options.devices,
            max_epochs=options.max_epochs,
            precision=_PRECISION[speed.precision],
            log_every_n_steps=1,
            check_val_every_n_epoch=options.validate_every,
            enable_progress_bar=bar,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            callbacks=callbacks,
            plugins=CheckpointFiles(),
            default_root_dir=output,
            logger=TensorBoardLogger(
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
            f"trainer.accelerator: expected a device of the kind {options.accelerator}, "
            f"found none ({error})"
        ) from error
    if trainer.world_size > 1:
        check_processes(config)
        data.check_processes(trainer.world_size)
        trainer.callbacks.append(SharedBuffers())  # type: ignore[attr-defined]
    return trainer


def _runs_in_parallel() -> bool:
    """Whether a launcher may run several jobs at once, whose bars would overwrite each other."""
    if not HydraConfig.initialized():
        return False
    hydra = HydraConfig.get()
    launcher = hydra.runtime.choices.get("hydra/launcher", "basic")
    return hydra.mode == RunMode.MULTIRUN and launcher != "basic"


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
        trainer.logger.save()


def _save_pictures(module: TaskModule, data: TaskData, output: Path) -> dict[str, Path]:
    module.eval()
    paths = {}
    for name, picture in module.pictures(data, "test", seed=0).items():
        paths[name] = output / f"{name}.png"
        save_image(picture, paths[name])
    return paths


def _report(output: Path, checkpoint: Path, pictures: Mapping[str, Path]) -> None:
    rows = {"run": output, f"{checkpoint.stem} checkpoint": checkpoint, **pictures}
    for name, path in (rows | {"watch": f"tensorboard --logdir {output}"}).items():
        Console().print(f"{name:>16}  {path}", soft_wrap=True, highlight=False)
