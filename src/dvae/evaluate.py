"""Evaluates a checkpoint on a split: the numbers of the discrete model."""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from rich.console import Console

from dvae.build import build_data
from dvae.callbacks import ProgressBar, quiet
from dvae.checkpoint import load_module
from dvae.devices import resolve_device, tune_process
from dvae.files import write_json
from dvae.report import latents_table, metrics_table
from dvae.schemas import Data, EvaluateConfig, FromCheckpointConfig, ModelConfig

__all__ = ["data_of", "evaluate"]


def data_of(config: FromCheckpointConfig, trained: ModelConfig) -> Data:
    """The checkpoint's own data, changed by what the configuration overrides."""
    overrides = config.data.model_dump(exclude_none=True)
    return trained.data.model_copy(update=overrides)


def evaluate(config: EvaluateConfig) -> dict[str, float]:
    """Evaluates a checkpoint, prints a table and writes JSON.

    Args:
        config: The configuration.

    Returns:
        The metrics, keyed by split and name: see `dvae.modules.vae.VAEModule`.

    Raises:
        UserError: If an input is wrong.
    """
    quiet()
    tune_process()
    checkpoint = Path(config.checkpoint)
    module, trained = load_module(checkpoint)
    module.test_split = config.split
    module.test_samples = config.num_samples
    module.eval_seed = config.seed
    module.max_decodes = config.max_decodes
    if config.relaxed_temperature is not None:
        module.vae.layer.set_temperature(config.relaxed_temperature)
    changed = data_of(config, trained).model_copy(update={"eval_batch_size": config.batch_size})
    data = build_data(changed, config.data_dir, trained.seed)
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
    settings: dict[str, Any] = {
        "checkpoint": str(checkpoint),
        "split": config.split,
        "seed": config.seed,
    }
    latents = {
        "usage_perplexity": module.usage.perplexity().tolist(),
        "information": module.usage.information().tolist(),
    }
    settings |= {"data": changed.model_dump(), "metrics": dict(metrics), "latents": latents}
    write_json(output, settings)
    console = Console()
    console.print(metrics_table(f"{checkpoint}, {config.split}", metrics))
    console.print(latents_table(latents))
    console.print(f"written to {output}", soft_wrap=True, highlight=False)
    return dict(metrics)
