"""Evaluates a checkpoint on a split: metrics of the discrete model."""

from pathlib import Path

import pytorch_lightning as pl
from rich.console import Console

from dvae.commands.report import latents_table, metrics_table
from dvae.files import write_json
from dvae.tasks import find_task
from dvae.tasks.loading import load_module
from dvae.tasks.options import EvaluateConfig
from dvae.training.callbacks import ProgressBar, quiet
from dvae.training.devices import resolve_device, tune_process
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
    tune_process()
    checkpoint = Path(config.checkpoint)
    module, trained = load_module(checkpoint)
    task = find_task(trained.task)
    task.check_options(config)
    choices = {"num_samples": config.num_samples, "max_decodes": config.max_decodes}
    given = {key: value for key, value in choices.items() if value is not None}
    module.evaluation = Evaluation(config.split, seed=config.seed, **given)
    if config.relaxed_temperature is not None:
        module.set_temperature(config.relaxed_temperature)
    data = task.stored_data(trained, config)
    trainer = pl.Trainer(
        accelerator="gpu" if resolve_device(config.device).type == "cuda" else "cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=config.progress_bar,
        callbacks=[ProgressBar()] if config.progress_bar else [],
    )
    loader = data.eval_dataloader(config.split)
    [metrics] = trainer.test(module, loader, verbose=False)
    output = Path(config.output or checkpoint.with_suffix(f".{config.split}.json"))
    used = config.model_dump(exclude={"output", "progress_bar", "device", "data_dir"})
    details = module.details()
    results = {"metrics": dict(metrics), "latents": details}
    write_json(output, used | {"trained": trained.model_dump()} | results)
    console = Console()
    console.print(metrics_table(f"{checkpoint}, {config.split}", metrics, module.units))
    if 0 < max(map(len, details.values()), default=0) <= _MAX_ROWS:
        console.print(latents_table(details))
    console.print(f"written to {output}", soft_wrap=True, highlight=False)
    return dict(metrics)
