"""The variational autoencoder with categorical latents."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from dvae.distributions import (
    categorical_entropy,
    categorical_kl,
    concrete_sample,
    log_softmax,
    one_hot,
    working_dtype,
)
from dvae.estimators.base import CodeSample
from dvae.estimators.score_function import scored_rates
from dvae.layers import CategoricalLayer
from dvae.likelihoods.base import Likelihood
from dvae.models.output import VAEOutput
from dvae.networks.base import Decoder, Encoder
from dvae.networks.groups import in_order
from dvae.priors.base import Prior

__all__ = ["VAE", "Choose"]

Choose = Callable[[slice, Tensor], Tensor]
"""Place of a group among the latents, and its logits (..., n, K) → integer codes (..., n), or
one-hot or relaxed vectors (..., n, K)."""


class VAE(nn.Module):
    """q(z|x) from an encoder, p(x|z) from a likelihood, p(z) from a prior.

    q(z|x) = Π_n Cat(z_n; softmax(logits_n)). With an encoder of several groups, the logits of a
    group depend on the codes of the groups drawn before.

    Args:
        encoder: Images (B, C, H, W) → logits (B, N, K), or features for several groups.
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

    @property
    def is_factorized(self) -> bool:
        """Whether q(z|x) is a product over latents, all drawn at once."""
        return len(self.encoder.places) == 1

    @property
    def rate_depends_on_draw(self) -> bool:
        """Whether the rate is part of the cost that the estimator differentiates."""
        return self.prior.depends_on_draw or not self.is_factorized

    def encode(self, images: Tensor) -> Any:
        """Images (B, C, H, W) in [0, 1] → what `draw` needs.

        That is the logits of q(z|x), (B, N, K), unless the encoder draws several groups.
        """
        return self.encoder(images - self.pixel_mean)

    def draw(self, features: Any, choose: Choose) -> tuple[Tensor, Tensor]:
        """Draws from q(z|x) group by group.

        Args:
            features: What `encode` returned.
            choose: Draws the codes of a group from their logits; called once for each group.

        Returns:
            The logits of all latents, (..., N, K), and what was chosen: (..., N) or (..., N, K).
        """
        all_logits, chosen = self._draw_groups(features, choose)
        if len(chosen) == 1:
            return all_logits[0], chosen[0]
        leading = torch.broadcast_shapes(*(logits.shape[:-2] for logits in all_logits))
        expanded = [logits.expand(*leading, *logits.shape[-2:]) for logits in all_logits]
        axis = -2 if chosen[0].is_floating_point() else -1
        places = self.encoder.places
        return torch.cat(in_order(expanded, places), -2), torch.cat(in_order(chosen, places), axis)

    def _draw_groups(self, features: Any, choose: Choose) -> tuple[list[Tensor], list[Tensor]]:
        """The logits of each group, and what was chosen, in the order of drawing; see `draw`."""
        all_logits: list[Tensor] = []
        chosen: list[Tensor] = []
        vectors: list[Tensor] = []
        for place in self.encoder.places:
            logits = self.encoder.logits(features, vectors)
            drawn = choose(place, logits)
            hard = not drawn.is_floating_point()
            vectors.append(one_hot(drawn, logits.shape[-1], logits.dtype) if hard else drawn)
            all_logits.append(logits)
            chosen.append(drawn)
        return all_logits, chosen

    def draw_codes(self, features: Any, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The arg max of logits + noise: an exact draw from q(z|x) with standard Gumbel noise.

        Args:
            features: What `encode` returned.
            noise: (..., N, K); None takes the most probable category, group by group.

        Returns:
            The logits, (..., N, K), and integer codes, (..., N).
        """

        def choose(place: slice, logits: Tensor) -> Tensor:
            return (logits if noise is None else logits + noise[..., place, :]).argmax(-1)

        return self.draw(features, choose)

    def draw_relaxed(self, features: Any, noise: Tensor) -> tuple[Tensor, Tensor]:
        """The same with Concrete samples at the layer's temperature; see `draw_codes`.

        Returns:
            The logits, and relaxed codes, both (..., N, K).
        """
        temperature = self.layer.temperature

        def choose(place: slice, logits: Tensor) -> Tensor:
            return concrete_sample(logits, temperature, noise[..., place, :]).exp()

        return self.draw(features, choose)

    def sample(self, features: Any, num_samples: int = 1) -> CodeSample:
        """Draws from q(z|x) with the layer's estimator.

        Args:
            features: What `encode` returned.
            num_samples: m, codes per image; for m > 1 they are on a new leading axis.
        """
        layer = self.layer
        samples: list[CodeSample] = []
        if layer.estimator.options.enumerates and not self.is_factorized:
            return self._every_code(features)

        def choose(place: slice, logits: Tensor) -> Tensor:
            if samples:
                samples.append(layer.estimator.sample_next(logits, layer.temperature))
            else:
                many = logits if num_samples == 1 else logits.expand(num_samples, *logits.shape)
                samples.append(layer.sample(many))
            return samples[-1].z

        self._draw_groups(features, choose)
        if len(samples) == 1:
            return samples[0]
        return CodeSample.join(in_order(samples, self.encoder.places))

    def _every_code(self, features: Any) -> CodeSample:
        """All codes of all groups, on a new leading axis."""
        whole: list[CodeSample] = []

        def choose(place: slice, logits: Tensor) -> Tensor:
            if not whole:
                shape = (*logits.shape[:-2], self.num_latents, self.num_categories)
                whole.append(self.layer.sample(logits.new_zeros(shape)))
            return whole[0].z[..., place, :]

        logits, z = self.draw(features, choose)
        return CodeSample(z, whole[0].codes, logits)

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

    def kl(self, logits: Tensor, z: Tensor, context: Tensor | None = None) -> Tensor:
        """The rate of each latent in nats, whose expectation sums to KL(q(z|x) ‖ p(z)).

        KL(q_n ‖ p_n(·|z_<n)), if all latents that p_n may depend on were drawn before z_n or in its
        group. Otherwise −H(q_n) − log p_n(z_n|z_<n), extended linearly to relaxed z.

        Args:
            logits: Logits of q(z|x), (B, N, K) or (..., B, N, K).
            z: Codes drawn from q, (..., B, N, K).
            context: What the prior is given besides, (B, C).

        Returns:
            (B, N), or (..., B, N) if it depends on the draw.
        """
        return self._kl(logits, z, self.prior.conditional_logits(z, context))

    def _kl(self, logits: Tensor, z: Tensor, prior_logits: Tensor) -> Tensor:
        """`kl`, given the logits of the prior."""
        # Half precision would lose tenths of a nat in the sum over latents.
        working = logits.to(working_dtype(logits.dtype))
        if self.is_factorized or not self.prior.depends_on_draw:
            return categorical_kl(working, prior_logits)
        parts: list[Tensor] = []
        drawn = 0
        for place in self.encoder.places:
            q, p = working[..., place, :], prior_logits.expand_as(z)[..., place, :]
            if place.start <= drawn:
                parts.append(categorical_kl(q, p))
                drawn = place.stop
            else:
                log_p = log_softmax(p).clamp_min(torch.finfo(p.dtype).min)
                parts.append(-categorical_entropy(q) - (z[..., place, :] * log_p).sum(-1))
        return torch.cat(in_order(parts, self.encoder.places), -1)

    def rate(self, logits: Tensor, z: Tensor, context: Tensor | None = None) -> Tensor:
        """KL(q(z|x) ‖ p(z)) in nats, the sum of `kl` over latents: (B,) or (..., B)."""
        return self.kl(logits, z, context).sum(-1)

    def forward(self, images: Tensor, num_samples: int = 1) -> VAEOutput:
        """Encodes images, draws codes with the layer's estimator and decodes them.

        Args:
            images: (B, C, H, W) in [0, 1].
            num_samples: m, codes per image; for m > 1 they are on a new leading axis.
        """
        features = self.encode(images)
        sample = self.sample(features, num_samples)
        logits = features if self.is_factorized else sample.logits
        # A prior that saw relaxed codes would read from them what the discrete ones do not tell.
        z = sample.hard_z
        pathwise = not self.layer.estimator.score_function
        scored = num_samples > 1 and pathwise and self.is_factorized and self.prior.depends_on_draw
        if scored:
            z = z.detach()
        prior_logits = self.prior.conditional_logits(z)
        kl = self._kl(logits, z, prior_logits)
        if scored:
            kl = scored_rates(kl, sample)
        return VAEOutput(sample, self.distortion(images, sample.z), kl, prior_logits)
