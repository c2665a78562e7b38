"""The variational autoencoder with categorical latents."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dvae.distributions import bernoulli_log_likelihood, categorical_kl, one_hot
from dvae.estimators import CodeSample
from dvae.layers import GumbelSoftmax
from dvae.priors.factorized import Prior

__all__ = ["VAE", "VAEOutput"]


@dataclass(frozen=True)
class VAEOutput:
    """One pass through the model, in nats per image.

    Attributes:
        sample: The codes drawn from q(z|x), with their logits (..., B, N, K).
        distortion: −log p(x|z) of each draw, (..., B).
        rate: KL(q(z|x) ‖ p(z)), summed over latents, (B,).
    """

    sample: CodeSample
    distortion: Tensor
    rate: Tensor


class VAE(nn.Module):
    """q(z|x) = Π_n Cat(z_n), p(x|z) = Π_pixels Bernoulli, p(z) = Π_n Cat(z_n).

    Args:
        encoder: Images (B, *image_shape) → logits (B, N, K).
        decoder: Codes (..., N, K) → pixel logits (..., *image_shape), without an output bias.
        layer: Draws codes from logits.
        prior: p(z).
        pixel_mean: Mean training image, of image_shape, in [0, 1].
        base_rates: Whether the mean image centres the encoder's input and sets the output bias to
            its log-odds, so that training starts at the base rates. Otherwise the encoder sees
            pixels as they are and the output bias starts at zero.

    References:
        Kingma, Welling 2014, arXiv 1312.6114; Jang, Gu, Poole 2017, arXiv 1611.01144.
    """

    pixel_mean: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        layer: GumbelSoftmax,
        prior: Prior,
        pixel_mean: Tensor,
        *,
        base_rates: bool = True,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.layer = layer
        self.prior = prior
        zeros = torch.zeros_like(pixel_mean)
        self.register_buffer("pixel_mean", pixel_mean.clone() if base_rates else zeros)
        self.output_bias = nn.Parameter(pixel_mean.logit(eps=1e-3) if base_rates else zeros)

    @property
    def num_latents(self) -> int:
        """N."""
        return self.prior.logits.shape[0]

    @property
    def num_categories(self) -> int:
        """K."""
        return self.prior.logits.shape[1]

    def encode(self, images: Tensor) -> Tensor:
        """Images (B, *image_shape) in [0, 1] → logits of q(z|x), (B, N, K)."""
        return self.encoder(images - self.pixel_mean)

    def decode(self, z: Tensor) -> Tensor:
        """One-hot or relaxed codes (..., N, K) → pixel logits (..., *image_shape)."""
        return self.decoder(z) + self.output_bias

    def decode_codes(self, codes: Tensor) -> Tensor:
        """Integer codes (..., N) → pixel logits (..., *image_shape)."""
        return self.decode(one_hot(codes, self.num_categories, self.pixel_mean.dtype))

    def log_likelihood(self, images: Tensor, pixel_logits: Tensor) -> Tensor:
        """log p(x|z) in nats per image: see `bernoulli_log_likelihood`."""
        return bernoulli_log_likelihood(images, pixel_logits)

    def rate(self, logits: Tensor) -> Tensor:
        """KL(q(z|x) ‖ p(z)) in nats: (B, N, K) → (B,)."""
        return categorical_kl(logits, self.prior.logits).sum(-1)

    def forward(self, images: Tensor, num_samples: int = 1) -> VAEOutput:
        """Encodes, draws codes with the layer's estimator, decodes: what training needs.

        Args:
            images: (B, *image_shape) in [0, 1].
            num_samples: m, codes for each image; more than one stand on a leading axis.
        """
        logits = self.encode(images)
        repeated = logits if num_samples == 1 else logits.expand(num_samples, *logits.shape)
        sample = self.layer.sample(repeated)
        distortion = -self.log_likelihood(images, self.decode(sample.z))
        return VAEOutput(sample, distortion, self.rate(logits))
