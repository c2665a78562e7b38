"""Trains a model: configuration → metrics and a folder with all that the run wrote."""

from collections.abc import Mapping, Sequence
from multiprocessing import current_process
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from omegaconf import OmegaConf
from pytorch_lightning.callbacks import Callback, EarlyStopping
from pytorch_lightning.loggers import TensorBoardLogger
from rich.console import Console

from dvae.build import build_module, build_training_data, build_vae
from dvae.callbacks import GradientNoise, Pictures, ProgressBar, quiet
from dvae.checkpoint import CheckpointFiles, check_resumable, load_checkpoint
from dvae.data.binarize import to_unit
from dvae.data.module import ImageDataModule
from dvae.devices import tune_process
from dvae.distributed import SharedBuffers, check_processes
from dvae.environment import environment
from dvae.errors import UserError
from dvae.files import write_file, write_json
from dvae.modules.vae import VAEModule
from dvae.randomness import keyed_generator
from dvae.report import metrics_table
from dvae.resilience import BestCheckpoint, Finite, LastCheckpoint, Pruning
from dvae.runs import SELECTED_BY, is_first_process
from dvae.schemas import TrainConfig
from dvae.visualize import reconstructions, samples, save_image

__all__ = ["train"]

_PRECISION: dict[int | str, Any] = {
    16: "16-mixed",
    32: "32-true",
    64: "64-true",
    "bf16": "bf16-mixed",
}


def train(config: TrainConfig, callbacks: Sequence[Callback] = ()) -> dict[str, float]:
    """Trains on one configuration and tests the best checkpoint, or the last without validation.

    Writes to `config.paths.output_dir`: the resolved configuration, checkpoints, TensorBoard's
    events, `metrics.json` and two pictures.

    Args:
        config: The configuration.
        callbacks: Lightning callbacks besides those of the configuration.

    Returns:
        Test metrics of that checkpoint, and its validation ELBO, in nats per image.

    Raises:
        UserError: If an input is wrong.
    """
    quiet()
    tune_process()
    output = Path(config.paths.output_dir)
    output.mkdir(parents=True, exist_ok=True)
    pl.seed_everything(config.seed, verbose=False)
    data = build_training_data(config)
    data.prepare_data()
    vae = build_vae(config, data.pixel_mean())
    module = build_module(config, vae, data.steps_per_epoch())
    last = output / "checkpoints" / "last.ckpt"
    best = BestCheckpoint(last.with_name("best.ckpt")) if config.data.validation else None
    keep = [LastCheckpoint(last, config.trainer.save_every), *([best] if best else [])]
    before = {} if config.resume is None else load_checkpoint(config.resume, "resume")
    trainer = _build_trainer(config, output, [*keep, *callbacks], before.get("global_step"))
    if config.resume is not None:
        check_resumable(before, config.resume, trainer, module)
        if best is not None and is_first_process():
            _bring_along(Path(config.resume).with_name(best.path.name), best.path)
    if is_first_process():
        with write_file(output / "config.yaml") as file:
            file.write(OmegaConf.to_yaml(config.model_dump()))
        write_json(output / "environment.json", environment())
    if config.compile:
        module.compile_training()
    trainer.fit(module, datamodule=data, ckpt_path=config.resume, weights_only=True)
    checkpoint = last if best is None else best.path
    results = trainer.test(
        module, datamodule=data, ckpt_path=checkpoint, weights_only=True, verbose=False
    )[0]
    metrics = dict(results)
    if best is not None and best.best_model_score is not None:
        metrics = {SELECTED_BY: float(best.best_model_score)} | metrics
    if not trainer.is_global_zero:
        return metrics
    # Under names of their own: they are those of a checkpoint, not the last of a curve.
    final = {f"{checkpoint.stem}/{name}": value for name, value in metrics.items()}
    _log_hyperparameters(trainer, config, final)
    write_json(output / "metrics.json", metrics)
    pictures = _save_pictures(module, data, output)
    _report(metrics, output, checkpoint, pictures)
    return metrics


def _build_trainer(
    config: TrainConfig, output: Path, others: Sequence[Callback], start: int | None
) -> pl.Trainer:
    options = config.trainer
    callbacks: list[Callback] = [Finite()]
    callbacks += Pruning.from_environment() if config.data.validation else []
    if config.callbacks.pictures:
        callbacks.append(Pictures())
    if config.callbacks.early_stopping is not None:
        callbacks.append(
            EarlyStopping("val/elbo", mode="max", patience=config.callbacks.early_stopping)
        )
    if config.callbacks.gradient_snr is not None:
        callbacks.append(GradientNoise(config.callbacks.gradient_snr))
    # Bars of jobs that run beside each other would overwrite one another.
    bar = options.progress_bar and current_process().name == "MainProcess"
    if bar:
        callbacks.append(ProgressBar())
    callbacks += others
    try:
        trainer = pl.Trainer(
            accelerator=options.accelerator,
            devices=options.devices,
            max_epochs=options.max_epochs,
            precision=_PRECISION[config.precision],
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
                # What was written after the checkpoint that a run goes on from comes again.
                purge_step=None if start is None else start + 1,
            ),
        )
    except pl.utilities.exceptions.MisconfigurationException as error:
        raise UserError(
            f"trainer.accelerator: expected a device of the kind {options.accelerator}, "
            f"found none ({error})"
        ) from error
    if trainer.world_size > 1:
        check_processes(config, trainer.world_size)
        trainer.callbacks.append(SharedBuffers())  # type: ignore[attr-defined]
    return trainer


def _bring_along(source: Path, target: Path) -> None:
    """Copies the best checkpoint of the run that this one goes on from, unless it is the same."""
    if source.is_file() and not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        with write_file(target, "wb") as file:
            file.write(source.read_bytes())


def _log_hyperparameters(
    trainer: pl.Trainer, config: TrainConfig, metrics: Mapping[str, float]
) -> None:
    """Fills the HParams tab with what shapes the result."""
    values: dict[str, Any] = {}
    for group in ("estimator", "temperature", "objective", "model", "prior", "optimizer", "data"):
        for key, value in getattr(config, group).model_dump(exclude={"eval_batch_size"}).items():
            name = group if key == "name" else f"{group}.{key}"
            values[name] = value if isinstance(value, int | float | str) else str(value)
    values |= {"epochs": config.trainer.max_epochs, "seed": config.seed}
    if isinstance(trainer.logger, TensorBoardLogger):
        trainer.logger.log_hyperparams(values, dict(metrics), trainer.global_step)
        trainer.logger.save()


def _save_pictures(module: VAEModule, data: ImageDataModule, output: Path) -> dict[str, Path]:
    paths = {name: output / f"{name}.png" for name in ("reconstructions", "samples")}
    vae = module.vae.eval()
    images = to_unit(data.images("test")[:64].to(module.device))
    generator = keyed_generator(0, device=module.device)
    save_image(reconstructions(vae, images, generator)[0], paths["reconstructions"])
    save_image(samples(vae, 64, generator)[0], paths["samples"])
    return paths


def _report(
    metrics: Mapping[str, float], output: Path, checkpoint: Path, pictures: Mapping[str, Path]
) -> None:
    console = Console()
    how = "best checkpoint, by val/elbo" if "val/elbo" in metrics else "last checkpoint"
    console.print(metrics_table(f"Metrics of the {how}", metrics))
    rows = {"run": output, f"{checkpoint.stem} checkpoint": checkpoint, **pictures}
    for name, path in rows.items():
        console.print(f"{name:>16}  {path}", soft_wrap=True, highlight=False)
    console.print(f"{'watch':>16}  tensorboard --logdir {output}", soft_wrap=True, highlight=False)
