"""Layers that sample categorical codes from logits."""

from dataclasses import replace
from typing import Any

import torch
from torch import Generator, Tensor, nn

from dvae.distributions import check_temperature, draw_one_hot, gumbel_noise, working_dtype
from dvae.errors import UserError
from dvae.estimators import ESTIMATORS
from dvae.estimators.base import CodeSample, Estimator

__all__ = ["CategoricalLayer", "GumbelSoftmax"]


class CategoricalLayer(nn.Module):
    """Samples categorical codes with any gradient estimator.

    In training mode `z` comes from the estimator. In evaluation mode it is always an exact one-hot
    draw from softmax(logits), so that metrics describe the discrete model.

    The temperature is a buffer: `state_dict()` includes it, and changing it does not recompile
    the model. It is checked wherever it is set: here, by `set_temperature`, by
    `layer.temperature = 0.5` and by `load_state_dict`.

    Logits of −inf mask categories: they are never drawn, and their gradient is 0. Logits that
    define no distribution (one is NaN or +inf, or all of a latent are −inf) give a z of NaN, or
    with the estimator `exact` a surrogate of NaN; no error, since reading the logits takes time.

    Args:
        temperature: τ, finite and greater than 0. It affects gradients and relaxed samples, but
            never which hard code is drawn.
        estimator: An instance, or a name in `dvae.estimators.ESTIMATORS` for that estimator with
            its default options.
        dim: Axis of the categories in the logits. The axes after it are those of the latents: for
            logits (B, K, H, W) and `dim=1`, z is (B, K, H, W), the codes are (B, H, W), and a
            score function takes one cost for each of the B images.

    Raises:
        ValueError: If the temperature or the name is not valid.

    Example:
        >>> layer = CategoricalLayer(temperature=1.3, estimator="reinmax")
        >>> logits = torch.zeros(32, 20, 10, requires_grad=True)
        >>> layer(logits).shape
        torch.Size([32, 20, 10])
    """

    temperature: Tensor

    def __init__(
        self,
        temperature: float = 1.0,
        estimator: str | Estimator = "gumbel_softmax",
        *,
        dim: int = -1,
    ) -> None:
        super().__init__()
        if isinstance(estimator, str):
            if estimator not in ESTIMATORS:
                raise ValueError(
                    f"estimator: expected one of {', '.join(ESTIMATORS)}, found {estimator!r}"
                )
            estimator = ESTIMATORS[estimator]().build()
        self.estimator = estimator
        self.dim = dim
        self.register_buffer("temperature", torch.tensor(check_temperature(temperature)))

    def set_temperature(self, temperature: float) -> None:
        """Sets τ.

        Raises:
            ValueError: If it is not finite and greater than 0.
        """
        self.temperature.detach().fill_(check_temperature(temperature))

    def __setattr__(self, name: str, value: Any) -> None:
        """Copies a temperature as `set_temperature` does; one with a gradient is taken as it is."""
        if name != "temperature":
            super().__setattr__(name, value)
        elif isinstance(value, Tensor) and (value.requires_grad or self.temperature.is_meta):
            check_temperature(value)
            super().__setattr__(name, value)
        else:
            self.set_temperature(value)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        temperature = state_dict.get(f"{prefix}temperature")
        if isinstance(temperature, Tensor) and not temperature.is_meta:
            check_temperature(temperature)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def sample(
        self,
        logits: Tensor,
        *,
        noise: Tensor | None = None,
        generator: Generator | None = None,
        dim: int | None = None,
    ) -> CodeSample:
        """Draws codes with the estimator, in training and evaluation mode alike.

        Args:
            logits: Unnormalised log-probabilities, (..., N, K), or with the K on the axis `dim`.
            noise: Standard Gumbel noise of shape `estimator.noise_shape(logits.shape)`, for a
                deterministic draw.
            generator: Source of randomness if `noise` is not given.
            dim: Axis of the categories; the layer's by default.

        Returns:
            `z` with the axes of the logits, `codes` without `dim`, and the logits.

        Raises:
            ValueError: If the logits have no axis `dim`.
        """
        dim = _from_end(self.dim if dim is None else dim, logits)
        if dim == -1:
            return self.estimator.sample(logits, self.temperature, noise=noise, generator=generator)
        latents = logits.shape[dim + 1 :]

        def inner(tensor: Tensor) -> Tensor:
            return tensor.movedim(dim, -1).flatten(dim, -2)

        def outer(tensor: Tensor) -> Tensor:
            return tensor.unflatten(-2, latents).movedim(-1, dim)

        # `exact` takes no noise, of shape (0,).
        moved = inner(noise) if noise is not None and noise.numel() else None
        sample = self.estimator.sample(
            inner(logits), self.temperature, noise=moved, generator=generator
        )
        return replace(
            sample,
            z=outer(sample.z),
            codes=sample.codes.unflatten(-1, latents),
            logits=outer(sample.logits),
            scaled=None if sample.scaled is None else outer(sample.scaled),
            dim=dim,
        )

    def forward(self, logits: Tensor) -> Tensor:
        """Draws z from logits of the same shape, such as (..., N, K); one-hot in evaluation mode.

        Raises:
            ValueError: In training mode with a score-function estimator: its z has no gradient.
        """
        if self.training and self.estimator.score_function:
            raise ValueError(
                f"{type(self.estimator).__name__}: expected layer.sample and "
                "layer.estimator.surrogate in training mode, found layer(logits), whose z would "
                "have no gradient"
            )
        if self.training:
            return self.sample(logits).z
        # An exact draw from softmax(logits) for every estimator.
        dim = _from_end(self.dim, logits)
        working = logits.movedim(dim, -1).to(working_dtype(logits.dtype))
        noise = gumbel_noise(working.shape, dtype=working.dtype, device=logits.device)
        return draw_one_hot(working + noise, logits.dtype)[1].movedim(-1, dim)

    def extra_repr(self) -> str:
        """Shows the temperature in `print(layer)`, and the axis unless it is the last."""
        dim = "" if self.dim == -1 else f", dim={self.dim}"
        return f"temperature={self.temperature.item():g}{dim}"


def _from_end(dim: int, logits: Tensor) -> int:
    """The axis counted from the end."""
    if not -logits.ndim <= dim < logits.ndim:
        raise UserError(f"dim: expected an axis of logits {tuple(logits.shape)}, found {dim}")
    return dim if dim < 0 else dim - logits.ndim


class GumbelSoftmax(CategoricalLayer):
    """Gumbel-Softmax (the Concrete distribution): y = softmax((logits + g) / τ) in training.

    Args:
        temperature: τ, finite and greater than 0.
        hard: Whether z is one-hot in training too, with the gradient of y (straight-through).
        dim: Axis of the categories; see `CategoricalLayer`.

    Raises:
        ValueError: If the temperature is not valid.

    References:
        Jang, Gu, Poole 2017, arXiv 1611.01144; Maddison, Mnih, Teh 2017, arXiv 1611.00712.

    Example:
        >>> layer = GumbelSoftmax(temperature=0.5)
        >>> logits = torch.zeros(32, 20, 10, requires_grad=True)
        >>> layer(logits).shape
        torch.Size([32, 20, 10])
        >>> sorted(layer.eval()(logits).unique().tolist())
        [0.0, 1.0]
    """

    def __init__(self, temperature: float = 1.0, *, hard: bool = False, dim: int = -1) -> None:
        super().__init__(temperature, "st_gumbel_softmax" if hard else "gumbel_softmax", dim=dim)
