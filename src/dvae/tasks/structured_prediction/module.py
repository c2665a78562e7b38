"""Training and evaluation of structured output prediction with Lightning."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dvae.data.binarize import to_unit
from dvae.data.loader import Batch
from dvae.data.module import ImageDataModule
from dvae.distributions import (
    concrete_sample,
    gumbel_from_uniform,
    one_hot,
    sample_categorical,
)
from dvae.models.bounds import chunked_bound, decodes_at_once
from dvae.models.usage import CodeUsage
from dvae.randomness import ImageStreams, keyed_generator
from dvae.tasks.structured_prediction.model import StochasticNetwork, halves
from dvae.tasks.structured_prediction.pictures import completions
from dvae.training.images import ImageModule
from dvae.training.settings import Evaluation, Training

__all__ = ["StructuredPredictionModule"]


class StructuredPredictionModule(ImageModule):
    """Maximises log (1/m) Σ_s p(y|z_s), a bound on log p(y|x) with z_s drawn from p(z|x).

    With m = 1 and a score-function estimator, this is the expected log-likelihood. Metrics, in nats
    per image: `elbo`, log p(y|z) with one one-hot draw (a bound); `relaxed_elbo`, the same with
    relaxed codes (not a bound); in validation `bound`, the training bound with one-hot codes; and
    in the test `nll_iw{m}`, −log (1/m) Σ_s p(y|z_s) with one-hot codes.

    Args:
        network: The model.
        num_samples: m in training.
        training: See `TaskModule`.
        evaluation: See `TaskModule`.
        config: See `TaskModule`.
    """

    def __init__(
        self,
        network: StochasticNetwork,
        *,
        num_samples: int,
        training: Training | None = None,
        evaluation: Evaluation | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        usage = CodeUsage(len(network.layers) * network.num_latents, network.num_categories)
        likelihood, pixels = network.likelihood, network.pixel_mean.numel()
        super().__init__(
            likelihood, pixels, usage, network.training_pass, training, evaluation, config
        )
        self.network = network
        self.num_samples = num_samples

    def training_loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Computes the negative bound of a batch."""
        loss, bound = self.training_pass(batch.images, self.num_samples)
        return loss, {"elbo" if self.layers[0].estimator.hard else "relaxed_elbo": bound}

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Logs the bounds with one draw and with as many draws as in training."""
        streams = self._evaluate(batch, "val")
        bound = self._sampled_bound(batch.images, streams, self.num_samples)
        self.log_means({"bound": bound}, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Logs the metrics of validation, and a bound on the likelihood."""
        streams, options = self._evaluate(batch, self.evaluation.split), self.evaluation
        if options.num_samples:
            bound = self._sampled_bound(batch.images, streams, options.num_samples)
            self.log_means({f"nll_iw{options.num_samples}": -bound}, options.split)

    def pictures(self, data: ImageDataModule, split: str, seed: int) -> dict[str, Tensor]:
        """Completions of the first 16 images of a split."""
        images = to_unit(data.images(split)[:16].to(self.device))
        generator = keyed_generator("pictures", seed, device=self.device)
        return {"completions": completions(self.network, images, generator=generator)[0]}

    def _evaluate(self, batch: Batch, split: str) -> ImageStreams:
        network, (upper, lower) = self.network, halves(batch.images)
        streams = ImageStreams(batch.indices, self.evaluation.seed)
        codes_shape = (network.num_latents, network.num_categories)
        noise = [gumbel_from_uniform(streams.uniform(1, *codes_shape)[0]) for _ in network.layers]
        all_logits, all_codes = [], []

        def hard(number: int, logits: Tensor) -> Tensor:
            codes = (logits + noise[number]).argmax(-1)
            all_logits.append(logits)
            all_codes.append(codes)
            return one_hot(codes, network.num_categories, logits.dtype)

        def relaxed(number: int, logits: Tensor) -> Tensor:
            return concrete_sample(logits, self.layers[0].temperature, noise[number]).exp()

        log_prob = network.likelihood.log_prob
        terms = {"elbo": log_prob(lower, network.propagate(upper, hard))}
        if self.layers[0].estimator.uses_temperature:
            terms["relaxed_elbo"] = log_prob(lower, network.propagate(upper, relaxed))
        self.usage.update(torch.cat(all_logits, 1), torch.cat(all_codes, 1))
        self.log_means(terms, split)
        return streams

    def _sampled_bound(self, images: Tensor, streams: ImageStreams, num_samples: int) -> Tensor:
        """log (1/m) Σ_s p(y|z_s) in nats, (B,), in bounded memory."""
        network, (upper, lower) = self.network, halves(images)

        def draw(count: int) -> Tensor:
            # One call for all layers, so that the draws of an image do not depend on the chunks.
            uniform = streams.uniform(count, len(network.layers), network.num_latents)

            def hard(number: int, logits: Tensor) -> Tensor:
                codes = sample_categorical(logits, uniform[:, :, number])
                return one_hot(codes, network.num_categories, logits.dtype)

            return network.likelihood.log_prob(lower, network.propagate(upper, hard))

        at_once = decodes_at_once(network.output_bias.numel(), self.evaluation.max_decodes)
        return chunked_bound(draw, num_samples, at_once // len(images))
