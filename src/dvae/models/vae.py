"""The variational autoencoder with categorical latents."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dvae.distributions import categorical_kl, working_dtype
from dvae.estimators.base import CodeSample
from dvae.layers import CategoricalLayer
from dvae.likelihoods.base import Likelihood
from dvae.networks.base import Decoder, Encoder
from dvae.priors.base import Prior

__all__ = ["VAE", "VAEOutput"]


@dataclass(frozen=True)
class VAEOutput:
    """One pass through the model, in nats per image.

    Attributes:
        sample: The codes drawn from q(z|x), with their logits (..., B, N, K).
        distortion: −log p(x|z) of each draw, (..., B).
        rate: KL(q(z|x) ‖ p(z)), summed over latents: (B,), or (..., B) with a prior that depends
            on the draw.
    """

    sample: CodeSample
    distortion: Tensor
    rate: Tensor


class VAE(nn.Module):
    """q(z|x) = Π_n Cat(z_n; softmax(logits_n)), p(x|z) from a likelihood, p(z) from a prior.

    Args:
        encoder: Images (B, C, H, W) → logits (B, N, K).
        decoder: Codes (..., N, K) → parameters (..., P, H, W), without an output bias.
        layer: Draws codes from logits.
        prior: p(z).
        likelihood: p(x|z), given the decoder's parameters.
        pixel_mean: Mean training image, (C, H, W), in [0, 1].
        base_rates: Whether training starts at the mean image: it is subtracted from the encoder's
            input, and the output bias starts at `likelihood.start(pixel_mean)`. Otherwise the
            encoder's input is not centred and the output bias starts at 0.

    References:
        Kingma, Welling 2014, arXiv 1312.6114; Jang, Gu, Poole 2017, arXiv 1611.01144.
    """

    pixel_mean: Tensor

    def __init__(
        self,
        encoder: Encoder,
        decoder: Decoder,
        layer: CategoricalLayer,
        prior: Prior,
        likelihood: Likelihood,
        pixel_mean: Tensor,
        *,
        base_rates: bool,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.layer = layer
        self.prior = prior
        self.likelihood = likelihood
        bias = likelihood.start(pixel_mean)
        mean = pixel_mean.clone() if base_rates else torch.zeros_like(pixel_mean)
        self.register_buffer("pixel_mean", mean)
        self.output_bias = nn.Parameter(bias if base_rates else torch.zeros_like(bias))

    @property
    def num_latents(self) -> int:
        """N."""
        return self.prior.num_latents

    @property
    def num_categories(self) -> int:
        """K."""
        return self.prior.num_categories

    def encode(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) in [0, 1] → logits of q(z|x), (B, N, K)."""
        return self.encoder(images - self.pixel_mean)

    def decode(self, z: Tensor) -> Tensor:
        """One-hot or relaxed codes (..., N, K) → the likelihood's parameters (..., P, H, W)."""
        return self.decoder(z) + self.output_bias

    def decode_codes(self, codes: Tensor) -> Tensor:
        """Integer codes (..., N) → the likelihood's parameters (..., P, H, W)."""
        dtype = self.pixel_mean.dtype
        return self.decoder.decode_codes(codes, self.num_categories, dtype) + self.output_bias

    def distortion(self, images: Tensor, z: Tensor) -> Tensor:
        """−log p(x|z) in nats: (B, C, H, W) and one-hot or relaxed (..., B, N, K) → (..., B)."""
        return -self.likelihood.log_prob(images, self.decode(z))

    def rate(self, logits: Tensor, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Σ_n KL(q_n ‖ p_n(·|z_<n)) in nats.

        Args:
            logits: Logits of q(z|x), (B, N, K).
            z: Codes drawn from q, (..., B, N, K).
            context: What the prior is given besides, (B, C).

        Returns:
            (B,), or (..., B) with a prior that depends on the draw.
        """
        # Half precision would lose tenths of a nat in the sum over latents.
        working = logits.to(working_dtype(logits.dtype))
        return categorical_kl(working, self.prior.conditional_logits(z, context)).sum(-1)

    def forward(self, images: Tensor, num_samples: int = 1) -> VAEOutput:
        """Encodes images, draws codes with the layer's estimator and decodes them.

        Args:
            images: (B, C, H, W) in [0, 1].
            num_samples: m, codes per image; for m > 1 they are on a new leading axis.
        """
        logits = self.encode(images)
        repeated = logits if num_samples == 1 else logits.expand(num_samples, *logits.shape)
        sample = self.layer.sample(repeated)
        distortion = self.distortion(images, sample.z)
        # A prior that saw relaxed codes would read from them what the discrete ones do not tell.
        return VAEOutput(sample, distortion, self.rate(logits, sample.hard_z))
