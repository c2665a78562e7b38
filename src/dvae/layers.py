"""Layers that sample categorical codes from logits."""

import torch
from torch import Generator, Tensor, nn

from dvae.distributions import gumbel_noise, one_hot, working_dtype
from dvae.estimators import ESTIMATORS
from dvae.estimators.base import CodeSample, Estimator, check_temperature

__all__ = ["CategoricalLayer", "GumbelSoftmax"]


class CategoricalLayer(nn.Module):
    """Samples categorical codes with any gradient estimator.

    In training mode `z` comes from the estimator. In evaluation mode it is always an exact one-hot
    draw from softmax(logits), so that metrics describe the discrete model.

    The temperature is a buffer: `state_dict()` includes it, and changing it does not recompile
    the model.

    Args:
        temperature: τ, finite and greater than 0. It affects gradients and relaxed samples, but
            never which hard code is drawn.
        estimator: An instance, or a name in `dvae.estimators.ESTIMATORS` for that estimator with
            its default options.

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
        self, temperature: float = 1.0, estimator: str | Estimator = "gumbel_softmax"
    ) -> None:
        super().__init__()
        if isinstance(estimator, str):
            if estimator not in ESTIMATORS:
                raise ValueError(
                    f"estimator: expected one of {', '.join(ESTIMATORS)}, found {estimator!r}"
                )
            estimator = ESTIMATORS[estimator]().build()
        self.estimator = estimator
        self.register_buffer("temperature", torch.tensor(check_temperature(temperature)))

    def set_temperature(self, temperature: float) -> None:
        """Sets τ.

        Raises:
            ValueError: If it is not finite and greater than 0.
        """
        self.temperature.fill_(check_temperature(temperature))

    def sample(
        self, logits: Tensor, *, noise: Tensor | None = None, generator: Generator | None = None
    ) -> CodeSample:
        """Draws codes with the estimator, in training and evaluation mode alike.

        Args:
            logits: Unnormalised log-probabilities, (..., N, K).
            noise: Standard Gumbel noise of shape `estimator.noise_shape(logits.shape)`, for a
                deterministic draw.
            generator: Source of randomness if `noise` is not given.

        Returns:
            `z`, `codes` and the logits.
        """
        return self.estimator.sample(logits, self.temperature, noise=noise, generator=generator)

    def forward(self, logits: Tensor) -> Tensor:
        """Draws z from logits, (..., N, K) → (..., N, K); one-hot in evaluation mode.

        Raises:
            ValueError: In training mode with a score-function estimator: its z has no gradient.
        """
        if self.training and self.estimator.score_function:
            raise ValueError(
                f"{type(self.estimator).__name__}: expected layer.sample and "
                "layer.estimator.surrogate in training mode, found layer(logits), whose z would "
                "have no gradient"
            )
        # Gumbel-max: an exact draw from softmax(logits) for every estimator.
        if not self.training:
            working = logits.to(working_dtype(logits.dtype))
            noise = gumbel_noise(logits.shape, dtype=working.dtype, device=logits.device)
            return one_hot((working + noise).argmax(-1), logits.shape[-1], logits.dtype)
        return self.sample(logits).z

    def extra_repr(self) -> str:
        """Shows the temperature in `print(layer)`."""
        return f"temperature={self.temperature.item():g}"


class GumbelSoftmax(CategoricalLayer):
    """Gumbel-Softmax (the Concrete distribution): y = softmax((logits + g) / τ) in training.

    Args:
        temperature: τ, finite and greater than 0.
        hard: Whether z is one-hot in training too, with the gradient of y (straight-through).

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

    def __init__(self, temperature: float = 1.0, *, hard: bool = False) -> None:
        super().__init__(temperature, "st_gumbel_softmax" if hard else "gumbel_softmax")
