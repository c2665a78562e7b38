"""Parts of a training step, each alone: what a step takes beyond its matrix products.

Each part takes a configuration and returns a step, with the configured sizes in float32. Forward
and backward pass run where a part has both.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from dvae.benchmark.baselines import PRODUCTS, Step, calls
from dvae.distributions import categorical_kl, gumbel_noise
from dvae.tasks.vae.config import VAEConfig
from dvae.training.devices import tune_process

__all__ = ["PARTS"]

_TEMPERATURE = 0.7


def _batch(config: VAEConfig, device: torch.device) -> Step:
    """Selects the images of a batch and binarizes them."""
    data = config.data.build(config.paths.data_dir, config.seed)
    data.setup()

    def batches() -> Iterator[Any]:
        while True:
            for group in data.train_dataloader():
                yield from (batch.to(device) for batch in group)

    endless = batches()
    return lambda: next(endless)


def _noise(config: VAEConfig, device: torch.device) -> Step:
    """Draws Gumbel noise."""
    shape = _logits(config, device).shape
    return lambda: gumbel_noise((config.objective.num_samples, *shape), device=device)


def _codes(config: VAEConfig, device: torch.device) -> Step:
    """Draws codes from logits and noise with the estimator."""
    layer = config.build_layer().to(device)
    logits = _logits(config, device)
    repeated = logits.expand(config.objective.num_samples, *logits.shape)
    noise = gumbel_noise(layer.estimator.noise_shape(repeated.shape), device=device)
    layer.set_temperature(_TEMPERATURE)
    return _both_passes(lambda x: layer.sample(x.expand_as(repeated), noise=noise).z, [logits])


def _rate(config: VAEConfig, device: torch.device) -> Step:
    """Computes the KL divergence from a uniform prior."""
    logits = _logits(config, device)
    prior = torch.zeros(logits.shape[1:], device=device)
    return _both_passes(lambda x: categorical_kl(x, prior).sum(-1), [logits])


def _likelihood(config: VAEConfig, device: torch.device) -> Step:
    """Scores the images of a batch."""
    shape, likelihood = config.data.image_shape, config.likelihood.build()
    count = (config.objective.num_samples, config.data.batch_size)
    images = torch.rand(config.data.batch_size, *shape, device=device).round()
    parameters = torch.randn(*count, likelihood.channels(shape[0]), *shape[1:], device=device)
    return _both_passes(lambda x: likelihood.log_prob(images, x), [parameters])


def _activations(config: VAEConfig, device: torch.device) -> Step:
    """Normalizes and activates the hidden layers of encoder and decoder."""
    vae = config.build_model().train().to(device)
    images = torch.rand(config.data.batch_size, *config.data.image_shape, device=device)
    codes = torch.zeros(
        config.objective.num_samples, len(images), vae.num_latents, device=device
    ).long()
    used = calls(
        vae,
        lambda: (vae.encode(images), vae.decode_codes(codes)),
        lambda module: not isinstance(module, PRODUCTS) and not [*module.children()],
    )
    steps = [_both_passes(module, [torch.randn(shape, device=device)]) for module, shape in used]

    def step() -> None:
        for one in steps:
            one()

    return step


def _optimizer(config: VAEConfig, device: torch.device) -> Step:
    """Updates the parameters."""
    vae = config.build_model().to(device)
    optimizer = config.optimizer.build(vae)
    for parameter in vae.parameters():
        parameter.grad = torch.randn_like(parameter)
    return optimizer.step


def _logits(config: VAEConfig, device: torch.device) -> Tensor:
    vae = config.build_model()
    return torch.randn(config.data.batch_size, vae.num_latents, vae.num_categories, device=device)


def _both_passes(function: Callable[..., Tensor], inputs: list[Tensor]) -> Step:
    for tensor in inputs:
        tensor.requires_grad_()
    parameters = [*function.parameters()] if isinstance(function, nn.Module) else []
    gradient = torch.ones_like(function(*inputs))

    def step() -> None:
        for tensor in (*inputs, *parameters):
            tensor.grad = None
        function(*inputs).backward(gradient)

    return step


def _tuned(part: Callable[[VAEConfig, torch.device], Step]) -> Any:
    def build(config: VAEConfig, device: torch.device) -> Step:
        tune_process()
        return part(config, device)

    return build


PARTS: dict[str, Callable[[VAEConfig, torch.device], Step]] = {
    "activations": _tuned(_activations),
    "batch": _tuned(_batch),
    "codes": _tuned(_codes),
    "noise": _tuned(_noise),
    "optimizer": _tuned(_optimizer),
    "rate": _tuned(_rate),
    "scores": _tuned(_likelihood),
}
"""Kind of a case → part."""
