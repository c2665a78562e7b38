"""Training and evaluation of semi-supervised classification with Lightning."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from dvae.distributions import log_softmax, one_hot, sample_categorical
from dvae.models.bounds import chunked_bound, decodes_at_once
from dvae.models.usage import CodeUsage
from dvae.randomness import ImageStreams, keyed_generator
from dvae.tasks.semi_supervised.data import LabelledBatch
from dvae.tasks.semi_supervised.model import ClassStyleVAE
from dvae.tasks.semi_supervised.pictures import classes
from dvae.training.images import ImageModule
from dvae.training.settings import Evaluation, Training

__all__ = ["SemiSupervisedModule"]

_STYLES = 10


class SemiSupervisedModule(ImageModule):
    """Minimises negative bounds for unlabelled and labelled images, and a classification loss.

    loss = U(x) + L(x', y') − w log q(y'|x'), each a mean over its part of the batch. In training,
    the classifier sees slightly deformed images; encoder and decoder see the original ones.

    Metrics: `accuracy`, the percentage of images whose most probable class is right. In nats per
    image, without labels: `elbo`, a bound on log p(x) with one draw of a one-hot class and a style;
    `rate`, its term KL(q(y|x) ‖ p(y)); and in the test `nll_iw{m}`.

    Args:
        model: The model.
        classification_weight: w.
        deformation: s of `dvae.tasks.semi_supervised.deform.deform`; 0 for none.
        training: See `TaskModule`.
        evaluation: See `TaskModule`.
        config: See `TaskModule`.
    """

    shown: ClassVar[tuple[str, ...]] = ("elbo", "relaxed_elbo", "cross_entropy")
    units: ClassVar[Mapping[str, str]] = {
        **ImageModule.units,
        "accuracy": "% of images",
    }

    def __init__(
        self,
        model: ClassStyleVAE,
        *,
        classification_weight: float,
        deformation: float,
        training: Training | None = None,
        evaluation: Evaluation | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        usage = CodeUsage(1, model.num_classes)
        likelihood, pixels = model.likelihood, model.pixel_mean.numel()
        super().__init__(
            likelihood, pixels, usage, model.training_pass, training, evaluation, config
        )
        self.model = model
        self.classification_weight = classification_weight
        self.deformation = deformation

    def training_loss(self, batch: LabelledBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Computes the loss of a batch."""
        loss, bound, labelled, cross_entropy = self.training_pass(
            batch.images, batch.labels, self.deformation, self.classification_weight
        )
        elbo = "elbo" if self.model.layer.estimator.hard else "relaxed_elbo"
        return loss, {elbo: bound, "labelled_elbo": labelled, "cross_entropy": cross_entropy}

    def validation_step(self, batch: LabelledBatch, batch_idx: int) -> None:
        """Logs accuracy and the bound."""
        self._evaluate(batch, "val")

    def test_step(self, batch: LabelledBatch, batch_idx: int) -> None:
        """Logs the metrics of validation, and a bound on the likelihood."""
        options = self.evaluation
        logits, streams = self._evaluate(batch, options.split)
        if options.num_samples:
            bound = self._sampled_bound(batch.images, logits, streams, options.num_samples)
            self.log_means({f"nll_iw{options.num_samples}": -bound}, options.split)

    def pictures(self, data: Any, split: str, seed: int) -> dict[str, Tensor]:
        """Each class in ten styles."""
        generator = keyed_generator("pictures", seed, device=self.device)
        return {"classes": classes(self.model, _STYLES, generator)[0]}

    def _evaluate(self, batch: LabelledBatch, split: str) -> tuple[Tensor, ImageStreams]:
        model = self.model
        logits = model.classify(batch.images)
        streams = ImageStreams(batch.indices, self.evaluation.seed)
        codes, y, noise = self._draw(logits, streams, 1)
        cost, rate = model.cost(batch.images, y[0], noise[0]), model.rate(logits)
        self.usage.update(logits, codes[0].unsqueeze(-1))
        accuracy = 100 * (logits[:, 0].argmax(-1) == batch.labels).double()
        self.log_means({"accuracy": accuracy, "elbo": -(cost + rate), "rate": rate}, split)
        return logits, streams

    def _draw(
        self, logits: Tensor, streams: ImageStreams, count: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Draws classes (S, B), also as one-hot vectors (S, B, K), and style noise (S, B, D)."""
        uniform = streams.uniform(count, 1 + self.model.style)
        codes = sample_categorical(logits[:, 0], uniform[..., 0])
        y = one_hot(codes, self.model.num_classes, logits.dtype)
        # Stay off 0 and 1, where the noise would be infinite.
        noise = torch.special.ndtri(uniform[..., 1:].clamp(2**-25, 1 - 2**-24))
        return codes, y, noise.to(logits.dtype)

    def _sampled_bound(
        self, images: Tensor, logits: Tensor, streams: ImageStreams, num_samples: int
    ) -> Tensor:
        """log (1/m) Σ_s p(x, y_s, z_s) / q(y_s, z_s|x) in nats, (B,), in bounded memory."""
        log_q = log_softmax(logits[:, 0].double())

        def draw(count: int) -> Tensor:
            codes, y, noise = self._draw(logits, streams, count)
            log_class = log_q.gather(-1, codes.T).T + math.log(self.model.num_classes)
            return self.model.log_weight(images, y, noise).double() - log_class

        at_once = decodes_at_once(self.model.output_bias.numel(), self.evaluation.max_decodes)
        return chunked_bound(draw, num_samples, at_once // len(images))
