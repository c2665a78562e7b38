"""Compares gradient estimators on a model: a table, a CSV and a plot."""

import math
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from dvae.commands.build import build_data, build_vae
from dvae.commands.cli import compose
from dvae.commands.config import parse
from dvae.commands.schemas import ModelConfig, TrainConfig
from dvae.commands.script_schemas import GradientsConfig
from dvae.data.binarize import to_unit
from dvae.errors import UserError
from dvae.estimators import ESTIMATORS
from dvae.models import VAE
from dvae.models.gradients import Quality, compare, plot, write_csv
from dvae.tasks.vae.module import VAEModule
from dvae.training.checkpoints import load_module
from dvae.training.devices import resolve_device

__all__ = ["compare_gradients"]


def compare_gradients(config: GradientsConfig) -> list[Quality]:
    """Measures estimators; prints a table, writes `gradients.csv` and `gradients.png`.

    Args:
        config: The configuration.

    Returns:
        One result for each estimator and temperature.

    Raises:
        UserError: If an input is wrong.
    """
    device = resolve_device(config.device)
    torch.manual_seed(config.seed)
    vae, images = _model_and_images(config)
    names = sorted(ESTIMATORS) if config.estimators is None else config.estimators
    folder = Path(config.paths.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    results = []
    console = Console()
    try:
        with console.status("measuring") as status:
            for result in compare(
                vae.to(device), images.to(device), names, config.temperatures, config.num_draws
            ):
                results.append(result)
                status.update(f"measured {result.estimator} at {result.temperature}")
    except ValueError as error:
        raise UserError(str(error)) from error
    console.print(_table(results))
    write_csv(folder / "gradients.csv", results)
    plot(folder / "gradients.png", results)
    console.print(f"written to {folder}", soft_wrap=True, highlight=False)
    return results


def _model_and_images(config: GradientsConfig) -> tuple[VAE, torch.Tensor]:
    if config.checkpoint is not None:
        module, trained = load_module(config.checkpoint)
        if not isinstance(module, VAEModule) or not isinstance(trained, ModelConfig):
            raise UserError(
                f"checkpoint: expected one of task=vae, found {trained.task} in {config.checkpoint}"
            )
        data = build_data(trained.data, config.paths.data_dir, trained.seed)
        vae = module.vae
    else:
        small = ["model.num_latents=4", "model.num_categories=8", "paths.output_dir=."]
        trained = parse(TrainConfig, compose("train", small))
        data = build_data(trained.data, config.paths.data_dir, trained.seed)
        vae = build_vae(trained, data.pixel_mean())
    return vae, to_unit(data.images("val")[: config.num_images])


def _table(results: list[Quality]) -> Table:
    table = Table(
        title="Gradient of the distortion, relative to the exact one", title_justify="left"
    )
    table.add_column("estimator", no_wrap=True)
    for name in ("τ", "bias", "± s.e.", "variance", "cosine", "µs a call"):
        table.add_column(name, justify="right")
    for r in results:
        temperature = "–" if math.isnan(r.temperature) else f"{r.temperature:g}"
        row = (f"{r.bias:.3f}", f"{r.bias_error:.3f}", f"{r.variance:.3g}", f"{r.cosine:.3f}")
        table.add_row(r.estimator, temperature, *row, f"{r.microseconds:,.0f}")
    return table
