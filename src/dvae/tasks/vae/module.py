"""Training and evaluation of a VAE with Lightning."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.image import PeakSignalNoiseRatio, StructuralSimilarityIndexMeasure

from dvae.data.binarize import to_unit
from dvae.data.loader import Batch
from dvae.data.module import ImageDataModule
from dvae.distributions import gumbel_from_uniform, one_hot
from dvae.models.bounds import Enumeration, exact_log_likelihood, sampled_bound
from dvae.models.objectives import Objective
from dvae.models.usage import CodeUsage, MutualInformation
from dvae.models.vae import VAE
from dvae.options import MAX_ENUMERATION
from dvae.randomness import ImageStreams, keyed_generator
from dvae.schedules import Constant, Schedule
from dvae.tasks.vae.inference import VAEInference
from dvae.tasks.vae.pictures import reconstructions, samples
from dvae.training.images import ImageModule
from dvae.training.pictures import usage_picture
from dvae.training.settings import Evaluation, Training

__all__ = ["VAEModule"]

_COLLAPSED = 0.1
"""A rate below this, in nats, counts as a collapsed posterior."""
_FULL = 0.97
"""Fraction of the ceiling above which a rate counts as full; the same for the distortion."""
_PICTURE_LOGITS = 2**26
"""Most logits of the images in the pictures."""
_MAX_SCORED = 1024
"""Most codes that are enumerated where each pair of image and code needs a score of its own."""
_AT_ONCE = 100
"""Images that are compared with others at once."""
_HALF_WINDOW = 5
"""Pixels by which SSIM's window of 11 × 11 exceeds an image."""


@dataclass(frozen=True)
class _Drawn:
    """What an evaluation drew for a batch: one code for each image, and its logits."""

    features: Any
    logits: Tensor
    codes: Tensor
    streams: ImageStreams


class VAEModule(VAEInference, ImageModule):
    """Minimises an objective; reports bounds of the discrete model.

    Metrics, in nats per image: `elbo`, `rate` and `distortion` with one-hot codes drawn from
    q(z|x), `relaxed_elbo` with Concrete samples at the current temperature (a surrogate, not a
    bound), and in the test `nll_iw{m}` and, if the codes can be enumerated, `nll_exact`. If images
    are not binarized, `psnr` (in dB, from the mean squared error over the split) and `ssim` (the
    mean over images) compare them with the likelihood's mean, given the same codes as in `elbo`.
    The draws for an image depend only on the seed and its index, so that evaluations are
    reproducible. β is a function of the global step, too.

    Args:
        vae: The model.
        objective: The training objective; None for evaluation only.
        beta: β at each global step.
        prior_weight: Weight of p(z) in the rate at each global step; None for 1.
        training: See `TaskModule`.
        evaluation: See `TaskModule`.
        config: See `TaskModule`.
    """

    units: ClassVar[Mapping[str, str]] = {
        **ImageModule.units,
        "psnr": "dB",
        "ssim": "at most 1",
    }
    beta_now: Tensor
    prior_weight_now: Tensor

    def __init__(
        self,
        vae: VAE,
        *,
        objective: Objective | None = None,
        beta: Schedule | None = None,
        prior_weight: Schedule | None = None,
        training: Training | None = None,
        evaluation: Evaluation | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        shared = vae.decoder.shared_codebook
        sizes, levels = (vae.num_latents, vae.num_categories), vae.prior.levels
        usage = CodeUsage(*sizes, shared=shared, levels=levels)
        training_pass = None if objective is None else objective.training_pass
        pixels = vae.pixel_mean.numel()
        super().__init__(vae.likelihood, pixels, usage, training_pass, training, evaluation, config)
        self.vae = vae
        self.beta = beta or Constant(1.0)
        self.information = MutualInformation()
        self.similarity = _similarity(vae.pixel_mean.shape)
        self.prior_weight = prior_weight
        # Tensors, because a new number would recompile the training pass.
        self.register_buffer("beta_now", torch.ones(()), persistent=False)
        self.register_buffer("prior_weight_now", torch.ones(()), persistent=False)
        self._enumeration: Enumeration | None = None
        self._baseline: float | None = None

    def training_loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Computes the objective of a batch."""
        self.beta_now.fill_(self.beta(self.global_step))
        weight = None
        if self.prior_weight is not None:
            weight = self.prior_weight_now.fill_(self.prior_weight(self.global_step))
        loss, distortion, rate = self.training_pass(self.vae, batch.images, self.beta_now, weight)
        elbo = "elbo" if self.vae.layer.estimator.hard else "relaxed_elbo"
        return loss, {"distortion": distortion, "rate": rate, elbo: -(distortion + rate)}

    def on_validation_epoch_start(self) -> None:
        """Resets the statistics."""
        super().on_validation_epoch_start()
        self.similarity.reset()

    def on_test_epoch_start(self) -> None:
        """Resets the statistics, and decodes all codes if they are few."""
        super().on_test_epoch_start()
        self.similarity.reset()
        self.information.reset()
        vae = self.vae
        linear = vae.likelihood.linear_form(vae.output_bias.detach().unsqueeze(0)) is not None
        few = vae.num_categories**vae.num_latents <= (MAX_ENUMERATION if linear else _MAX_SCORED)
        self._enumeration = Enumeration.of(vae, self.device) if few else None

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Logs the bounds of the discrete and the relaxed model."""
        self._evaluate(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Logs the metrics of validation, and bounds on the likelihood or its exact value."""
        options = self.evaluation
        drawn = self._evaluate(batch, options.split)
        if self.vae.is_factorized:
            self.information.update(drawn.logits, drawn.codes)
        likelihoods = {}
        if options.num_samples:
            bound = sampled_bound(
                self.vae,
                batch.images,
                drawn.features,
                drawn.streams,
                options.num_samples,
                options.max_decodes,
            )
            likelihoods[f"nll_iw{options.num_samples}"] = -bound
        if self._enumeration is not None:
            likelihoods["nll_exact"] = -exact_log_likelihood(self._enumeration, batch.images)
        self.log_means(likelihoods, options.split)

    def on_validation_epoch_end(self) -> None:
        """Logs statistics of the codes, and the similarity of reconstructions."""
        super().on_validation_epoch_end()
        self._log_similarity("val")

    def on_test_epoch_end(self) -> None:
        """Adds the mutual information of images and codes to the statistics of validation."""
        super().on_test_epoch_end()
        self._log_similarity(self.evaluation.split)
        if self.vae.is_factorized:
            information = self.information.compute()
            self.log_dict({f"{self.evaluation.split}/mutual_information": information})

    def pictures(self, data: ImageDataModule, split: str, seed: int) -> dict[str, Tensor]:
        """Reconstructions, samples from the prior, and code usage in the last evaluation."""
        # Fewer with large codebooks, whose logits take much memory.
        count = max(8, min(64, _PICTURE_LOGITS // (self.vae.num_latents * self.vae.num_categories)))
        images = to_unit(data.images(split)[:count].to(self.device))
        generator = keyed_generator("pictures", seed, device=self.device)
        return {
            "reconstructions": reconstructions(self.vae, images, generator)[0],
            "samples": samples(self.vae, 64, generator)[0],
            "code_usage": usage_picture(self.usage.usage(), self.usage.categories()),
        }

    def concerns(self, metrics: Mapping[str, float], data: ImageDataModule) -> dict[str, str]:
        """Warns of codes without information, at a low or a full rate; see `TaskModule`."""
        concerns = super().concerns(metrics, data)
        rate, distortion = metrics["val/rate"], metrics["val/distortion"]
        ceiling = self.vae.num_latents * math.log(self.vae.num_categories)
        if rate < _COLLAPSED:
            concerns["collapsed posterior"] = (
                f"the rate is {rate:.3f} nats: codes carry no information about images; a smaller "
                "optimizer.lr or objective.beta, or objective.warmup, may help"
            )
        elif rate > _FULL * ceiling and self._is_full(distortion, data):
            concerns["rate without information"] = (
                f"the rate is {rate:.2f} of at most {ceiling:.2f} nats, but the distortion, "
                f"{distortion:.2f}, is close to that of the mean image; another seed, a smaller "
                "optimizer.lr or a lower temperature may help"
            )
        return concerns

    def _is_full(self, distortion: float, data: ImageDataModule) -> bool:
        """Whether the distortion is close to that of the mean training image, in nats."""
        if self._baseline is None:
            likelihood, images = self.vae.likelihood, data.images("val")
            parameters = likelihood.start(data.pixel_mean().to(images.device))
            parts = [
                likelihood.log_prob(to_unit(part), parameters) for part in images.split(_AT_ONCE)
            ]
            self._baseline = -torch.cat(parts).mean().item()
        # The distortion of a density may be negative.
        return distortion > self._baseline - (1 - _FULL) * abs(self._baseline)

    def _evaluate(self, batch: Batch, split: str) -> _Drawn:
        vae = self.vae
        features = vae.encode(batch.images)
        streams = ImageStreams(batch.indices, self.evaluation.seed)
        shape = (vae.num_latents, vae.num_categories)
        noise = gumbel_from_uniform(streams.uniform(1, *shape)[0])
        logits, codes = vae.draw_codes(features, noise)
        z = one_hot(codes, vae.num_categories, logits.dtype)
        parameters, kl = vae.decode(z), vae.kl(logits, z)
        rate, distortion = kl.sum(-1), -vae.likelihood.log_prob(batch.images, parameters)
        terms = {"elbo": -(distortion + rate), "rate": rate, "distortion": distortion}
        if len(vae.prior.levels) > 1:
            for number, place in enumerate(vae.prior.levels, 1):
                terms[f"rate_{number}"] = kl[..., place].sum(-1)
        if vae.layer.estimator.uses_temperature:
            relaxed_logits, relaxed = vae.draw_relaxed(features, noise)
            relaxed_distortion = vae.distortion(batch.images, relaxed)
            terms["relaxed_elbo"] = -(relaxed_distortion + vae.rate(relaxed_logits, relaxed))
        self.usage.update(logits, codes)
        if self.evaluation.shades:
            means = vae.likelihood.mean(parameters)
            for pair in zip(means.split(_AT_ONCE), batch.images.split(_AT_ONCE), strict=True):
                self.similarity.update(*(images.float() for images in pair))
        self.log_means(terms, split)
        return _Drawn(features, logits, codes, streams)

    def _log_similarity(self, split: str) -> None:
        if self.evaluation.shades:
            values = self.similarity.compute()
            self.log_dict({f"{split}/{name}": value for name, value in values.items()})


def _similarity(image_shape: Sequence[int]) -> MetricCollection:
    """Similarity of images in [0, 1]: SSIM needs images larger than half its window."""
    metrics: dict[str, Metric | MetricCollection] = {"psnr": PeakSignalNoiseRatio(data_range=1.0)}
    if min(image_shape[1:]) > _HALF_WINDOW:
        metrics["ssim"] = StructuralSimilarityIndexMeasure(data_range=1.0)
    # The sums over a split would lose digits in single precision.
    return MetricCollection(metrics, compute_groups=False).set_dtype(torch.float64)
