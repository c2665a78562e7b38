"""Compares gradient estimators on a model: a table, a CSV and a plot."""

import csv
import math
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

import torch
from matplotlib import colormaps
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from dvae.commands.checking import check
from dvae.commands.cli import compose
from dvae.commands.options import GradientsConfig
from dvae.data.binarize import to_unit
from dvae.errors import UserError
from dvae.estimators import ESTIMATORS
from dvae.files import check_writable, write_file
from dvae.models.gradients import Quality, compare
from dvae.models.vae import VAE
from dvae.tasks.vae.config import VAEConfig
from dvae.tasks.vae.loading import load_vae
from dvae.training.devices import describe_device, resolve_device
from dvae.training.terminal import status

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
    folder = Path(config.paths.output_dir)
    check_writable(folder / "gradients.csv")
    console = Console(markup=False)
    console.print(describe_device(config.device), soft_wrap=True, highlight=False, markup=False)
    torch.manual_seed(config.seed)
    vae, images = _model_and_images(config)
    names = list(ESTIMATORS) if config.estimators is None else config.estimators
    results = []
    try:
        with status() as show:
            show("measuring")
            for result in compare(
                vae.to(device), images.to(device), names, config.temperatures, config.num_draws
            ):
                results.append(result)
                temperature = f" at τ = {result.temperature:g}" if result.temperature > 0 else ""
                show(f"measured {result.estimator}{temperature}")
    except ValueError as error:
        raise UserError(str(error)) from error
    console.print(_table(results))
    _write_csv(folder / "gradients.csv", results)
    _plot(folder / "gradients.png", results)
    console.print(f"written to {folder}", soft_wrap=True, highlight=False)
    return results


def _model_and_images(config: GradientsConfig) -> tuple[VAE, torch.Tensor]:
    if config.checkpoint is not None:
        module, trained = load_vae(config.checkpoint)
        data = trained.data.build(config.paths.data_dir, trained.seed)
        vae = module.vae
    else:
        small = ["model.num_latents=4", "model.num_categories=8", "paths.output_dir=."]
        fresh = check(VAEConfig, compose("train", small))
        data = fresh.data.build(config.paths.data_dir, fresh.seed)
        vae = fresh.build_model(data.pixel_mean())
    return vae, to_unit(data.images("val")[: config.num_images])


def _table(results: list[Quality]) -> Table:
    table = Table(
        title="Gradient of the distortion, relative to the exact one", title_justify="left"
    )
    table.add_column("estimator", overflow="fold")
    headers = ("τ", "bias", "± s.e.", "variance", "cosine", "µs", "var. × s")
    for name in headers:
        table.add_column(name, justify="right")
    for r in results:
        temperature = "–" if math.isnan(r.temperature) else f"{r.temperature:g}"
        bias = f"{r.bias:.3f}" if r.biased or not r.bias_error else "noise"
        row = (bias, f"{r.bias_error:.3f}", f"{r.variance:.3g}", f"{r.cosine:.3f}")
        speed = (f"{r.microseconds:,.0f}", f"{r.variance_of_a_second:.2g}")
        table.add_row(r.estimator, temperature, *row, *speed)
    return table


def _write_csv(path: Path, results: Sequence[Quality]) -> None:
    """Writes one row for each result."""
    with write_file(path) as file:
        derived = ("biased", "variance_of_a_second")
        writer = csv.DictWriter(file, [*(field.name for field in fields(Quality)), *derived])
        writer.writeheader()
        for result in results:
            writer.writerow(asdict(result) | {name: getattr(result, name) for name in derived})


def _plot(path: Path, results: Sequence[Quality]) -> None:
    """Plots bias, variance, and variance × time over the temperature; a line for each estimator."""
    figure = Figure(figsize=(15, 4.5), layout="constrained")
    axes = figure.subplots(1, 3)
    names = list(dict.fromkeys(result.estimator for result in results))
    colours = colormaps["tab20"]
    quantities = {"bias": "bias", "variance": "variance", "variance_of_a_second": "variance × s"}
    for axis, (quantity, title) in zip(axes, quantities.items(), strict=True):
        for number, name in enumerate(names):
            rows = [result for result in results if result.estimator == name]
            values = [getattr(row, quantity) for row in rows]
            style = {"color": colours(number), "label": name}
            if math.isnan(rows[0].temperature):
                # An estimator without a temperature has one value.
                axis.axhline(values[0], linestyle="--", **style)
            else:
                axis.plot([row.temperature for row in rows], values, marker="o", **style)
        axis.set(title=f"relative {title}", xlabel="temperature", xscale="log")
        axis.set_yscale("symlog", linthresh=1e-5 if axis is axes[-1] else 1e-3)
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    axes[-1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    with write_file(path, "wb") as file:
        figure.savefig(file, dpi=110, format="png")
