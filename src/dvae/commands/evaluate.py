"""Evaluates a checkpoint on a split: metrics of the discrete model."""

from pathlib import Path

import pytorch_lightning as pl
from rich.console import Console

from dvae.commands.quiet import quiet
from dvae.commands.report import latents_table, metrics_table
from dvae.files import check_writable, write_json
from dvae.tasks import find_task
from dvae.tasks.loading import load_module
from dvae.tasks.options import EvaluateConfig
from dvae.training.devices import describe_device, resolve_device
from dvae.training.progress import ProgressBar, progress
from dvae.training.settings import Evaluation

__all__ = ["evaluate"]

_MAX_ROWS = 64
"""Most latents in the printed table; the JSON has all."""


def evaluate(config: EvaluateConfig) -> dict[str, float]:
    """Evaluates a checkpoint, prints a table and writes JSON.

    Args:
        config: The configuration.

    Returns:
        Split/name → metric; the module of the task lists them.

    Raises:
        UserError: If an input is wrong.
    """
    quiet()
    checkpoint = Path(config.checkpoint)
    module, trained = load_module(checkpoint)
    task = find_task(trained.task)
    task.check_options(config)
    output = Path(config.output or checkpoint.with_suffix(f".{config.split}.json"))
    check_writable(output)
    console = Console(markup=False)
    console.print(describe_device(config.device), soft_wrap=True, highlight=False, markup=False)
    choices = {"num_samples": config.num_samples, "max_decodes": config.max_decodes}
    given = {key: value for key, value in choices.items() if value is not None}
    if config.relaxed_temperature is not None:
        module.set_temperature(config.relaxed_temperature)
    data = task.stored_data(trained, config)
    module.evaluation = Evaluation(config.split, seed=config.seed, shades=data.shades, **given)
    shown = progress(name=str(checkpoint)) if config.progress_bar else None
    trainer = pl.Trainer(
        accelerator=resolve_device(config.device).type,
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=isinstance(shown, ProgressBar),
        callbacks=[shown] if shown else [],
    )
    loader = data.eval_dataloader(config.split)
    [metrics] = trainer.test(module, loader, verbose=False)
    used = config.model_dump(exclude={"output", "progress_bar", "device", "data_dir"})
    details = module.details()
    results = {"metrics": dict(metrics), "latents": details}
    console.print(metrics_table(f"{checkpoint}, {config.split}", metrics, module.units))
    if 0 < max(map(len, details.values()), default=0) <= _MAX_ROWS:
        console.print(latents_table(details))
    # After the tables, so that a disk that is full by now does not take the result.
    write_json(output, used | {"trained": trained.model_dump()} | results)
    console.print(f"written to {output}", soft_wrap=True, highlight=False)
    return dict(metrics)
