"""Configurations → objects, by exact lists of names: no name is ever looked up elsewhere."""

from functools import partial

import torch
from torch import Tensor, nn

from dvae import schedules
from dvae.commands.schemas import (
    Adam,
    ConstantTemperature,
    Conv,
    ExponentialTemperature,
    ModelConfig,
    NoTemperature,
    RunConfig,
    StoredConfig,
    TrainConfig,
)
from dvae.commands.schemas import Data as DataConfig
from dvae.commands.script_schemas import EvaluateConfig, FromCheckpointConfig
from dvae.data.module import ImageDataModule
from dvae.data.sources import IMAGE_SHAPE
from dvae.estimators import ESTIMATORS
from dvae.layers import GumbelSoftmax
from dvae.models import VAE
from dvae.models.objectives import OBJECTIVES
from dvae.networks.mlp import ConvDecoder, ConvEncoder, MLPDecoder, MLPEncoder
from dvae.priors.factorized import PRIORS
from dvae.tasks.vae.module import VAEModule
from dvae.training.module import Evaluation, Training
from dvae.training.optimizers import configure

__all__ = [
    "build_beta",
    "build_data",
    "build_layer",
    "build_learning_rate",
    "build_module",
    "build_stored_data",
    "build_temperature",
    "build_training",
    "build_training_data",
    "build_vae",
]


def build_data(
    config: DataConfig,
    data_dir: str,
    seed: int,
    kind: type[ImageDataModule] = ImageDataModule,
) -> ImageDataModule:
    """The images of a configuration, for evaluation."""
    return kind(root=data_dir, seed=seed, **config.model_dump())


def build_stored_data(
    stored: DataConfig,
    config: FromCheckpointConfig,
    seed: int,
    kind: type[ImageDataModule] = ImageDataModule,
) -> ImageDataModule:
    """The images of a checkpoint, changed by what the configuration of a script overrides."""
    changed = config.data.model_dump(exclude_none=True)
    if isinstance(config, EvaluateConfig):
        changed["eval_batch_size"] = config.batch_size or 100
    return build_data(stored.model_copy(update=changed), config.data_dir, seed, kind)


def build_training_data(
    config: RunConfig, data: DataConfig, kind: type[ImageDataModule] = ImageDataModule
) -> ImageDataModule:
    """The images of a run."""
    options = config.trainer
    return kind(
        root=config.paths.data_dir,
        seed=config.seed,
        steps_per_call=options.steps_per_call,
        limit_train_batches=options.limit_train_batches,
        limit_eval_batches=options.limit_eval_batches,
        **data.model_dump(),
    )


def build_layer(config: StoredConfig) -> GumbelSoftmax:
    """The layer that draws codes, with an estimator of its own."""
    options = config.estimator.model_dump(exclude={"name"})
    initial = 1.0 if isinstance(config.temperature, NoTemperature) else config.temperature.initial
    return GumbelSoftmax(initial, ESTIMATORS[config.estimator.name](**options))


def build_vae(config: ModelConfig, pixel_mean: Tensor | None = None) -> VAE:
    """The model of a configuration.

    Args:
        config: The configuration.
        pixel_mean: Mean training image; may be left out where a checkpoint is loaded after.
    """
    encoder_of: type[nn.Module] = ConvEncoder if isinstance(config.model, Conv) else MLPEncoder
    decoder_of: type[nn.Module] = ConvDecoder if isinstance(config.model, Conv) else MLPDecoder
    sizes = config.model.model_dump(exclude={"name", "base_rates"})
    vae = VAE(
        encoder_of(IMAGE_SHAPE, **sizes),
        decoder_of(IMAGE_SHAPE, **sizes),
        build_layer(config),
        PRIORS[config.prior.name](config.model.num_latents, config.model.num_categories),
        torch.full(IMAGE_SHAPE, 0.5) if pixel_mean is None else pixel_mean,
        base_rates=config.model.base_rates,
    )
    # The layout in which convolutions are fastest; nothing else has four axes.
    return vae.to(memory_format=torch.channels_last)


def build_temperature(config: RunConfig, total_steps: int) -> schedules.Schedule | None:
    """The temperature schedule of a run of so many steps; None where there is no temperature."""
    match config.temperature:
        case NoTemperature():
            return None
        case ConstantTemperature() as t:
            return schedules.Constant(t.initial)
        case ExponentialTemperature(rate=float() | int() as rate) as t:
            return schedules.Exponential(t.initial, t.minimum, t.update_every, rate)
        case ExponentialTemperature() as t:
            steps = schedules.resolve_steps(t.steps or 0, total_steps)
            return schedules.Exponential.over(t.initial, t.minimum, steps, t.update_every)
        case t:
            ramp = schedules.Linear if t.name == "linear" else schedules.Cosine
            steps = schedules.resolve_steps(t.steps, total_steps)
            return ramp(t.initial, t.minimum, t.update_every, steps)


def build_beta(config: TrainConfig, total_steps: int) -> schedules.Schedule:
    """The weight on the rate at each step of a run of so many steps."""
    steps = schedules.resolve_steps(config.objective.warmup, total_steps)
    return schedules.Warmup(config.objective.beta, steps)


def build_learning_rate(config: RunConfig, total_steps: int) -> schedules.Schedule:
    """The learning rate at each step of a run of so many steps."""
    lr = config.optimizer.lr
    warmup = schedules.resolve_steps(config.optimizer.warmup, total_steps)
    final = 0.0 if config.optimizer.schedule == "cosine" else lr
    return schedules.WarmupCosine(lr, warmup, total_steps, final)


def build_training(config: RunConfig, total_steps: int) -> Training:
    """How a module is trained over so many steps."""
    options = config.optimizer.model_dump(exclude={"schedule", "warmup"})
    if isinstance(config.optimizer, Adam):
        options["betas"] = (options.pop("beta1"), options.pop("beta2"))
    return Training(
        optimizer=partial(configure, **options),
        learning_rate=build_learning_rate(config, total_steps),
        temperature=build_temperature(config, total_steps),
        gradient_clip=config.trainer.gradient_clip,
        seed=config.seed,
        log_every=config.trainer.log_every,
        skip_nonfinite=config.on_nonfinite == "skip",
    )


def build_module(config: TrainConfig, vae: VAE, steps_per_epoch: int) -> VAEModule:
    """The LightningModule of a run with so many optimizer steps in an epoch."""
    total_steps = steps_per_epoch * config.trainer.max_epochs
    objective = config.objective.model_dump(exclude={"name", "beta", "warmup"})
    return VAEModule(
        vae,
        objective=OBJECTIVES[config.objective.name](**objective),
        beta=build_beta(config, total_steps),
        training=build_training(config, total_steps),
        evaluation=Evaluation(num_samples=config.test_samples),
        config=config.model_dump(),
    )
