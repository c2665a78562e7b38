"""A generative model of images with a class and a style, trained with a few labels."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dvae.distributions import categorical_kl, one_hot
from dvae.estimators.base import CodeSample
from dvae.layers import CategoricalLayer
from dvae.likelihoods.base import Likelihood
from dvae.networks.base import Encoder
from dvae.tasks.semi_supervised.deform import deform

__all__ = ["ClassStyleVAE", "Classified"]


@dataclass(frozen=True)
class Classified:
    """Result of a pass through the model without labels, in nats per image.

    Attributes:
        sample: The classes drawn from q(y|x), with their logits (B, 1, K).
        cost: −log p(x|y, z) + KL(q(z|x, y) ‖ p(z)) of each draw, (..., B).
        rate: KL(q(y|x) ‖ p(y)), (B,), in [0, ln K].
    """

    sample: CodeSample
    cost: Tensor
    rate: Tensor


class ClassStyleVAE(nn.Module):
    """p(x, y, z) = Cat(y; 1/K) N(z; 0, I) p(x|y, z), with q(y|x) and q(z|x, y).

    y is the class, a categorical latent that is observed for labelled images. z is the style, a
    diagonal Gaussian with few dimensions, so that the decoder has to use the class. Without a label

    log p(x) ≥ Σ_y q(y|x) (log p(x|y, z) − KL(q(z|x, y) ‖ p(z))) − KL(q(y|x) ‖ p(y)),

    where a draw of the layer estimates the sum, or the estimator `Exact` computes it: encoder and
    decoder then run for all classes in one pass. With a label, the sum has one term, and ln K
    replaces the last divergence.

    Args:
        classifier: Images (B, C, H, W) → logits of q(y|x), (B, 1, K).
        layer: Draws the class.
        likelihood: p(x|y, z), of the decoder's parameters.
        num_classes: K.
        style: Dimensions of z.
        width: Width of the hidden layers of encoder and decoder.
        pixel_mean: Mean training image, (C, H, W), in [0, 1]: it is subtracted from the input, and
            the output bias starts at the likelihood's parameters of it.

    References:
        Kingma, Rezende, Mohamed, Welling 2014, arXiv 1406.5298, model M2; Jang, Gu, Poole 2017,
        arXiv 1611.01144, section 4.3.
    """

    pixel_mean: Tensor

    def __init__(
        self,
        classifier: Encoder,
        layer: CategoricalLayer,
        likelihood: Likelihood,
        num_classes: int,
        style: int,
        width: int,
        pixel_mean: Tensor,
    ) -> None:
        super().__init__()
        pixels, bias = pixel_mean.numel(), likelihood.start(pixel_mean)
        self.num_classes = num_classes
        self.style = style
        self.classifier = classifier
        self.layer = layer
        self.likelihood = likelihood
        self.from_image = nn.Linear(pixels, width)
        self.from_class = nn.Linear(num_classes, width, bias=False)
        self.posterior = nn.Sequential(nn.ReLU(), nn.Linear(width, 2 * style))
        self.decoder = nn.Sequential(
            nn.Linear(num_classes + style, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, bias.numel(), bias=False),
        )
        self.register_buffer("pixel_mean", pixel_mean.clone())
        self.output_bias = nn.Parameter(bias)

    def classify(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) in [0, 1] → logits of q(y|x), (B, 1, K)."""
        return self.classifier(images - self.pixel_mean)

    def encode(self, images: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z|x, y).

        Args:
            images: (B, C, H, W) in [0, 1].
            y: One-hot or relaxed classes, (..., B, K), or a shape that broadcasts.

        Returns:
            Two tensors (..., B, D).
        """
        # Compute the image's part, most of the work, once for all classes.
        hidden = self.from_image((images - self.pixel_mean).flatten(1)) + self.from_class(y)
        mean, log_variance = self.posterior(hidden).chunk(2, -1)
        return mean, log_variance

    def decode(self, y: Tensor, z: Tensor) -> Tensor:
        """Classes (..., K) and styles (..., D) → the likelihood's parameters (..., P, H, W)."""
        y = y.expand(*z.shape[:-1], -1)
        parameters = self.decoder(torch.cat([y, z], -1))
        return parameters.unflatten(-1, self.output_bias.shape) + self.output_bias

    def cost(self, images: Tensor, y: Tensor, noise: Tensor | None = None) -> Tensor:
        """−log p(x|y, z) + KL(q(z|x, y) ‖ p(z)), with one draw of z, in nats.

        Args:
            images: (B, C, H, W) in [0, 1].
            y: One-hot or relaxed classes, (..., B, K), or a shape that broadcasts.
            noise: Standard normal noise of z, of a shape that broadcasts to (..., B, D); None
                draws it.

        Returns:
            (..., B).
        """
        mean, log_variance = self.encode(images, y)
        noise = torch.randn_like(mean) if noise is None else noise
        z = mean + (0.5 * log_variance).exp() * noise
        rate = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum(-1)
        return rate - self.likelihood.log_prob(images, self.decode(y, z))

    def log_weight(self, images: Tensor, y: Tensor, noise: Tensor) -> Tensor:
        """log p(x|y, z) + log p(z) − log q(z|x, y) at a draw of z, in nats; see `cost`."""
        mean, log_variance = self.encode(images, y)
        z = mean + (0.5 * log_variance).exp() * noise
        log_ratio = 0.5 * (noise**2 + log_variance - z**2).sum(-1)
        return log_ratio + self.likelihood.log_prob(images, self.decode(y, z))

    def rate(self, logits: Tensor) -> Tensor:
        """KL(q(y|x) ‖ p(y)) in nats: (B, 1, K) → (B,)."""
        return categorical_kl(logits, torch.zeros_like(logits)).sum(-1)

    def forward(
        self, images: Tensor, logits: Tensor | None = None, noise: Tensor | None = None
    ) -> Classified:
        """Classifies, draws classes with the layer's estimator, and scores the images.

        Args:
            images: (B, C, H, W) in [0, 1].
            logits: Logits of q(y|x), (B, 1, K); None computes them.
            noise: See `cost`.
        """
        logits = self.classify(images) if logits is None else logits
        sample = self.layer.sample(logits)
        cost = self.cost(images, sample.z.squeeze(-2), noise)
        return Classified(sample, cost, self.rate(logits))

    def bound(self, output: Classified) -> Tensor:
        """The negative bound without labels, a scalar with the estimator's gradient."""
        return self.layer.estimator.surrogate(output.cost, output.sample) + output.rate.mean()

    def labelled_cost(self, images: Tensor, labels: Tensor) -> Tensor:
        """The negative bound with labels (B,), in nats: (B,)."""
        y = one_hot(labels, self.num_classes, images.dtype)
        return self.cost(images, y) + math.log(self.num_classes)

    def training_pass(
        self,
        images: Tensor,
        labels: Tensor,
        deformation: float,
        classification_weight: float,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Classifies a batch, draws classes and computes the loss; this part is compiled.

        Args:
            images: (U + L, C, H, W) in [0, 1].
            labels: Classes of the last L images, (L,).
            deformation: s of `dvae.tasks.semi_supervised.deform.deform`; 0 for none.
            classification_weight: Weight on the cross-entropy.

        Returns:
            The loss, then (detached) the mean bounds without and with labels and the
            cross-entropy; scalars in nats per image.
        """
        # Classify both parts in one pass, so that batch normalization sees both.
        logits = self.classify(deform(images, deformation) if deformation else images)
        count = len(images) - len(labels)
        output = self(images[:count], logits[:count])
        expected = self.layer.estimator.expected(output.cost, output.sample)
        cross_entropy = nn.functional.cross_entropy(logits[count:, 0], labels)
        labelled = self.labelled_cost(images[count:], labels).mean()
        return (
            self.bound(output) + labelled + classification_weight * cross_entropy,
            -(expected + output.rate.mean()).detach(),
            -labelled.detach(),
            cross_entropy.detach(),
        )
