"""A network of stochastic layers that predicts one half of an image from the other."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

from torch import Tensor, nn

from dvae.estimators.base import CodeSample
from dvae.layers import CategoricalLayer
from dvae.likelihoods.base import Likelihood
from dvae.models.bounds import importance_weighted_bound
from dvae.networks.base import PreciseLinear

__all__ = ["Prediction", "StochasticNetwork", "halves"]

Draw = Callable[[int, Tensor], Tensor]
"""Index of a layer and its logits (..., N, K) → one-hot or relaxed codes (..., N, K)."""


def halves(images: Tensor) -> tuple[Tensor, Tensor]:
    """Splits images into upper and lower half: (..., H, W) → two of (..., H / 2, W)."""
    upper, lower = images.chunk(2, dim=-2)
    return upper, lower


@dataclass(frozen=True)
class Prediction:
    """Result of one pass through the network.

    Attributes:
        sample: The concatenated codes of all L layers, with their logits (..., B, L·N, K).
        distortion: −log p(y|z) of each draw in nats, (..., B).
    """

    sample: CodeSample
    distortion: Tensor


class StochasticNetwork(nn.Module):
    """p(y|x) = Σ_z p(y|z_L) Π_l p(z_l|z_{l−1}), with z_0 = x the upper and y the lower half.

    Each stochastic layer has N categorical variables, and linear maps connect the layers. With
    Bernoulli pixels, two layers of 20 variables with 10 categories, or of 200 with 2, are the
    networks of the paper: 392-(20×10)-(20×10)-392 and 392-200-200-392.

    Args:
        layers: Draw the codes of each layer; at least one. If the first has a score-function
            estimator, the others must draw one code for each of its draws.
        num_latents: N.
        num_categories: K.
        likelihood: p(y|z_L).
        pixel_mean: Mean training image (C, H, W) in [0, 1]: its upper half is subtracted from the
            input, and the output bias starts at the likelihood's parameters of its lower half.

    References:
        Raiko et al. 2015, arXiv 1406.2989; Jang, Gu, Poole 2017, arXiv 1611.01144, section 4.1.
    """

    pixel_mean: Tensor

    def __init__(
        self,
        layers: Sequence[CategoricalLayer],
        num_latents: int,
        num_categories: int,
        likelihood: Likelihood,
        pixel_mean: Tensor,
    ) -> None:
        super().__init__()
        upper, lower = halves(pixel_mean)
        bias = likelihood.start(lower)
        self.num_latents = num_latents
        self.num_categories = num_categories
        self.likelihood = likelihood
        self.layers = nn.ModuleList(layers)
        width = num_latents * num_categories
        inputs = [upper.numel(), *[width] * (len(layers) - 1)]
        self.maps = nn.ModuleList(PreciseLinear(size, width) for size in inputs)
        self.head = nn.Linear(width, bias.numel(), bias=False)
        self.register_buffer("pixel_mean", upper.clone())
        self.output_bias = nn.Parameter(bias)

    def layer(self, number: int) -> CategoricalLayer:
        """The stochastic layer with an index, counted from the input."""
        return cast(CategoricalLayer, self.layers[number])

    def propagate(self, upper: Tensor, draw: Draw) -> Tensor:
        """Draws codes layer by layer and decodes the last ones.

        Args:
            upper: Upper halves, (..., B, C, H / 2, W).
            draw: Draws the codes of a layer; called once per layer.

        Returns:
            The likelihood's parameters of the lower halves, (..., B, P, H / 2, W).
        """
        hidden = (upper - self.pixel_mean).flatten(-3)
        for number, linear in enumerate(self.maps):
            logits = linear(hidden).unflatten(-1, (self.num_latents, self.num_categories))
            hidden = draw(number, logits).flatten(-2)
        return self.head(hidden).unflatten(-1, self.output_bias.shape) + self.output_bias

    def forward(self, upper: Tensor, lower: Tensor, num_samples: int = 1) -> Prediction:
        """Draws codes with the layers' estimators and scores the lower halves.

        Args:
            upper: (B, C, H / 2, W) in [0, 1].
            lower: (B, C, H / 2, W) in [0, 1].
            num_samples: m, draws for each image; if m > 1, they form a leading axis.
        """
        samples: list[CodeSample] = []

        def draw(number: int, logits: Tensor) -> Tensor:
            samples.append(self.layer(number).sample(logits))
            return samples[-1].z

        repeated = upper if num_samples == 1 else upper.expand(num_samples, *upper.shape)
        parameters = self.propagate(repeated, draw)
        return Prediction(CodeSample.join(samples), -self.likelihood.log_prob(lower, parameters))

    def training_pass(self, images: Tensor, num_samples: int) -> tuple[Tensor, Tensor]:
        """Splits images, draws codes and computes the loss; this part is compiled.

        Args:
            images: (B, C, H, W) in [0, 1].
            num_samples: m.

        Returns:
            The loss and the mean bound (detached), scalars in nats per image.
        """
        output = self(*halves(images), num_samples)
        if num_samples == 1:
            estimator = self.layer(0).estimator
            return (
                estimator.surrogate(output.distortion, output.sample),
                -output.distortion.detach().mean(),
            )
        bound = importance_weighted_bound(-output.distortion).mean()
        return -bound, bound.detach()
