"""Baselines for the timing of training and evaluation: matrix products alone, and plain PyTorch.

Each baseline takes a configuration and returns a step, with the configured network, data and
precision.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Subset
from torchvision import datasets, transforms

from dvae.data.binarize import to_unit
from dvae.data.sources.bundled import unpack_mnist
from dvae.errors import UserError
from dvae.models.bounds import MAX_DECODES, sampled_bound
from dvae.models.vae import VAE
from dvae.randomness import ImageStreams
from dvae.tasks.vae.config import VAEConfig
from dvae.training.devices import tune_process

__all__ = [
    "BASELINES",
    "PRODUCTS",
    "Step",
    "calls",
    "floor",
    "likelihood",
    "likelihood_floor",
    "loop",
    "train_step",
    "tutorial",
    "tutorial_batches",
]

Step = Callable[[], object]
PRODUCTS = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)
"""Modules that compute matrix products."""


def floor(config: VAEConfig, device: torch.device) -> Step:
    """Only the matrix products (and convolutions) of the network, forward and backward.

    The operands have the configured precision. There are no draws, activations or updates, so this
    is a lower bound on the time of a training step with PyTorch.
    """
    vae = config.build_model().eval()
    images = torch.rand(config.data.batch_size, *config.data.image_shape)
    codes = torch.zeros(config.objective.num_samples, len(images), vae.num_latents).long()
    layers = _layers(vae, lambda: (vae.encode(images), vae.decode_codes(codes)))
    dtype = torch.bfloat16 if config.precision == "bf16" else torch.float32
    products = [
        _product(layer.to(device, dtype), shape, wants_input_gradient=index > 0)
        for index, (layer, shape) in enumerate(layers)
    ]

    def step() -> None:
        for product in products:
            product()

    return step


def calls(
    model: nn.Module, use: Step, wanted: Callable[[nn.Module], bool]
) -> list[tuple[nn.Module, torch.Size]]:
    """The modules that `use` calls, if they are wanted, with the shapes of their inputs."""
    found: list[tuple[nn.Module, torch.Size]] = []
    hooks = [
        module.register_forward_hook(lambda m, x, y: found.append((m, x[0].shape)))
        for module in model.modules()
        if wanted(module)
    ]
    with torch.no_grad():
        use()
    for hook in hooks:
        hook.remove()
    return found


def _layers(vae: VAE, use: Step) -> list[tuple[nn.Module, torch.Size]]:
    """The linear and convolutional layers that `use` calls, with the shapes of their inputs."""
    return calls(vae, use, lambda module: isinstance(module, PRODUCTS))


def _product(
    module: nn.Module, shape: torch.Size, *, wants_input_gradient: bool, forward_only: bool = False
) -> Step:
    """A layer's forward product, and the products for the gradients of its weight and input."""
    weight: Tensor = module.weight  # type: ignore[assignment]
    x = torch.randn(shape, dtype=weight.dtype, device=weight.device)
    if isinstance(module, nn.Linear):
        x = x.flatten(0, -2)
        y = torch.empty(len(x), len(weight), dtype=x.dtype, device=x.device)
        g, dw, dx = torch.randn_like(y), torch.empty_like(weight), torch.empty_like(x)

        def multiply() -> None:
            with torch.no_grad():
                torch.mm(x, weight.t(), out=y)
                if forward_only:
                    return
                torch.mm(g.t(), x, out=dw)
                if wants_input_gradient:
                    torch.mm(g, weight, out=dx)

        return multiply
    if not isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        raise TypeError(f"expected a linear or convolutional layer, found {type(module).__name__}")
    module.bias = None
    transposed = isinstance(module, nn.ConvTranspose2d)
    settings = (module.stride, module.padding, module.dilation, transposed, (0, 0), 1)
    with torch.no_grad():
        g = torch.randn_like(module(x))
    wanted = [wants_input_gradient, True, False]

    def convolve() -> None:
        with torch.no_grad():
            torch.ops.aten.convolution(x, weight, None, *settings)
            if not forward_only:
                torch.ops.aten.convolution_backward(g, x, weight, None, *settings, wanted)

    return convolve


def likelihood_floor(config: VAEConfig, device: torch.device) -> Step:
    """The matrix products of the decoder for `test_samples` codes of each image of a batch."""
    vae = config.build_model().eval()
    count = config.data.batch_size * config.test_samples
    rows = min(count, MAX_DECODES)
    codes = torch.zeros(rows, vae.num_latents).long()
    layers = _layers(vae, lambda: vae.decode_codes(codes))
    products = [
        _product(layer.to(device), shape, wants_input_gradient=False, forward_only=True)
        for layer, shape in layers
    ]

    def step() -> None:
        for _ in range(-(-count // rows)):
            for product in products:
                product()

    return step


def likelihood(config: VAEConfig, device: torch.device) -> Step:
    """The importance-weighted bound of a batch with `test_samples` samples, as in a test."""
    tune_process()
    vae = config.build_model().eval().to(device)
    data = config.data.build(config.paths.data_dir, config.seed)
    images = to_unit(data.images("test")[: config.data.batch_size].to(device))
    indices = torch.arange(len(images), device=device)

    def step() -> None:
        with torch.no_grad():
            streams = ImageStreams(indices, config.seed)
            sampled_bound(vae, images, vae.encode(images), streams, config.test_samples)

    return step


def loop(config: VAEConfig, device: torch.device) -> Step:
    """A plain loop over images in memory, with default Adam."""
    data = config.data.build(config.paths.data_dir, config.seed)
    images = (data.images("train").float() / 255).to(device)
    vae = config.build_model().to(device)

    def batches() -> Iterator[Tensor]:
        while True:
            for indices in torch.randperm(len(images), device=device).split(config.data.batch_size):
                if len(indices) == config.data.batch_size:
                    yield images[indices]

    return train_step(config, vae, batches())


def tutorial(config: VAEConfig, device: torch.device) -> Step:
    """The loop of a tutorial; see `tutorial_batches`."""
    batches, _ = tutorial_batches(config)
    return train_step(config, config.build_model().to(device), batches)


def tutorial_batches(config: VAEConfig) -> tuple[Iterator[Tensor], int]:
    """Batches as in tutorials: torchvision's data set, `ToTensor` and a `DataLoader`.

    Returns:
        Grey batches without end, and their number in an epoch.

    Raises:
        UserError: If the data set is not MNIST.
    """
    if config.data.name != "mnist":
        raise UserError(f"tutorial: expected data=mnist, found {config.data.name}")
    root = Path(config.paths.data_dir)
    unpack_mnist(root)
    mnist = datasets.MNIST(str(root), train=True, transform=transforms.ToTensor())
    held_out = config.data.build(root, config.seed).held_out(len(mnist))
    data = Subset(mnist, range(len(mnist) - held_out))
    loader = DataLoader(data, config.data.batch_size, shuffle=True, drop_last=True)

    def batches() -> Iterator[Tensor]:
        while True:
            for images, _ in loader:
                yield images

    return batches(), len(loader)


def train_step(config: VAEConfig, vae: VAE, batches: Iterator[Tensor]) -> Step:
    """An optimizer step as tutorials write it: Gumbel-Softmax, binary cross-entropy, Adam."""
    device = vae.pixel_mean.device
    optimizer = torch.optim.Adam(vae.parameters(), lr=1e-3)
    num_samples = config.objective.num_samples

    def autocast() -> AbstractContextManager[object]:
        return torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16")

    def step() -> None:
        x = next(batches).to(device)
        if config.data.binarization == "dynamic":
            x = torch.bernoulli(x)
        optimizer.zero_grad()
        with autocast():
            logits = vae.encode(x)
            repeated = logits.repeat(num_samples, 1, 1)
            z = functional.gumbel_softmax(repeated, tau=0.7)
            pixels = vae.decode(z)
            targets = x.repeat(num_samples, 1, 1, 1)
            distortion = functional.binary_cross_entropy_with_logits(
                pixels, targets, reduction="sum"
            )
            q = logits.softmax(-1)
            rate = (q * (logits.log_softmax(-1) + math.log(vae.num_categories))).sum()
            loss = distortion / len(z) + rate / len(x)
        loss.backward()
        optimizer.step()

    return step


BASELINES: dict[str, Callable[[VAEConfig, torch.device], Step]] = {
    "floor": floor,
    "likelihood": likelihood,
    "likelihood_floor": likelihood_floor,
    "loop": loop,
    "tutorial": tutorial,
}
"""Kind of a case → baseline."""
