"""Base of all tasks' LightningModules: the training step, and means over a split."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.nn.modules.conv import _ConvNd
from torch.optim import Optimizer

from dvae.errors import DivergedError
from dvae.layers import CategoricalLayer
from dvae.randomness import keyed_seed
from dvae.training.inference import Inference
from dvae.training.settings import Evaluation, Training

__all__ = ["TaskModule"]


_MAX_SKIPPED = 100
"""A run ends if it has skipped more steps than this and more than half of all steps."""


class TaskModule(Inference, pl.LightningModule, ABC):
    """Training in which temperature, learning rate and noise are functions of the global step.

    Each call of `training_step` takes several optimizer steps, because Lightning's overhead per
    call is as long as a step of a small model on a GPU.

    Args:
        training_pass: The model's input for a batch → its loss, then detached scalars;
            `compile_training` compiles it. None for evaluation only.
        training: Training options; None for evaluation only.
        evaluation: Evaluation options.
        config: Plain values from which the module can be rebuilt; saved in checkpoints.

    Attributes:
        shown: Training curves that the progress bar shows.
        units: Metric name without the split, or its beginning → unit, for metrics that are not in
            nats per image.
    """

    shown: ClassVar[Sequence[str]] = ("elbo", "relaxed_elbo")
    units: ClassVar[Mapping[str, str]] = {}

    def __init__(
        self,
        training_pass: Callable[..., tuple[Tensor, ...]] | None,
        training: Training | None = None,
        evaluation: Evaluation | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.training_pass = training_pass or _evaluation_only
        self.training_options = training
        self.evaluation = evaluation or Evaluation(num_samples=0)
        self.config = dict(config or {})
        self.curves: dict[str, float] = {}
        self.skipped = 0
        self._terms: list[Tensor] = []

    @abstractmethod
    def training_loss(self, batch: Any) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The loss of a batch by `self.training_pass`, and scalars for the training curves.

        If the loss has no gradient, a compiled pass has already computed those of the parameters.
        """

    @abstractmethod
    def pictures(self, data: Any, split: str, seed: int) -> dict[str, Tensor]:
        """Pictures (3 or 1, H, W) in [0, 1] that show what the model has learnt, by name.

        Args:
            data: The data of the run, a `dvae.data.base.TaskData`.
            split: The split that they take images from.
            seed: Seed of their noise.
        """

    def concerns(self, metrics: Mapping[str, float], data: Any) -> dict[str, str]:
        """Looks for signs after a validation that the model learns nothing.

        Args:
            metrics: Metrics of the validation.
            data: The data of the run.

        Returns:
            Name of a problem → a sentence that says what was found and what may help.
        """
        return {}

    def details(self) -> dict[str, list[float]]:
        """Statistics of each latent in the last evaluation: name → one value per latent."""
        return {}

    @cached_property
    def layers(self) -> list[CategoricalLayer]:
        """The layers that draw codes; all share estimator and temperature."""
        return [module for module in self.modules() if isinstance(module, CategoricalLayer)]

    def set_temperature(self, temperature: float) -> None:
        """Sets τ of all layers."""
        for layer in self.layers:
            layer.set_temperature(temperature)

    def compile_training(self, device: torch.device, *, backward: bool) -> None:
        """Compiles the training pass; on a GPU into a CUDA graph.

        On a CPU, the compiled pass draws its noise from torch's eager generator, which is faster
        and gives the same noise as an uncompiled pass.

        Args:
            device: The device of the run.
            backward: Whether to compile forward and backward pass into one graph, which is faster.
                The gradients then cannot be averaged over processes or scaled. On a GPU, networks
                with convolutions have two graphs all the same.
        """
        settings = torch._dynamo.config
        # The runs of a sweep share a process; after 8 shapes, torch would stop compiling.
        settings.recompile_limit = settings.accumulated_recompile_limit
        on_gpu = device.type == "cuda"
        # There, torch expects other strides in one graph than convolutions have.
        if backward and not (on_gpu and self._convolves()):
            # Earlier versions of torch divide the graph before the backward pass.
            if hasattr(settings, "trace_autograd_ops"):
                settings.trace_autograd_ops = True
            self.training_pass = _with_backward(self.training_pass)
        how = {"mode": "reduce-overhead"} if on_gpu else {"options": {"fallback_random": True}}
        # All batches of a run have one shape. If an earlier run in this process had another one,
        # torch would take the shape for a variable, which fails where noise is drawn.
        self.training_pass = torch.compile(self.training_pass, dynamic=False, **how)

    def _convolves(self) -> bool:
        return any(isinstance(module, _ConvNd) for module in self.modules())

    def configure_optimizers(self) -> Optimizer | None:
        """The optimizer; None for evaluation only."""
        return None if self.training_options is None else self.training_options.optimizer(self)

    def training_step(self, batches: Sequence[Any], batch_idx: int) -> None:
        """Takes an optimizer step for each batch.

        Raises:
            DivergedError: If a loss or a gradient was not finite.
        """
        self._terms = []
        for batch in batches:
            self._step(batch)
        self._check_finite()

    def _step(self, batch: Any) -> None:
        options, step = self._options(), self.global_step
        # The rank is in the key, so that no two processes draw the same noise.
        _seed_noise(keyed_seed("noise", options.seed, step, self.global_rank), self.device)
        if options.temperature is not None:
            self.set_temperature(options.temperature(step))
        optimizer: Any = self.optimizers()
        for group in optimizer.param_groups:
            group["lr"] = options.learning_rate(step)
        optimizer.zero_grad()
        loss, curves = self.training_loss(batch)
        if loss.requires_grad:
            self.manual_backward(loss)
        if options.gradient_clip:
            self.clip_gradients(optimizer, options.gradient_clip, "norm")
        if options.skip_nonfinite and not self._finite_gradient():
            self.skipped += 1
            # A step without gradients changes no weights, but is counted. A gradient scaler skips
            # the step itself, and must see these gradients to lower its scale.
            if getattr(self.trainer.precision_plugin, "scaler", None) is None:
                optimizer.zero_grad()
        optimizer.step()
        # Read only once per call, because reading waits for the device.
        self._terms.append(torch.stack([loss.detach(), *curves.values()]))
        self._names = ("loss", *curves)
        # Autocast would go on using its half-precision copies of the old weights.
        torch.clear_autocast_cache()
        if self.global_step % options.log_every == 0:
            self._log_curves({"loss": loss, **curves})

    def _finite_gradient(self) -> bool:
        gradients = [p.grad for p in self.parameters() if p.grad is not None]
        return bool(torch.stack(torch._foreach_norm(gradients)).isfinite().all())

    def _check_finite(self) -> None:
        """Raises if a loss or a weight of this call is not finite, before anything is saved."""
        if self._options().skip_nonfinite:
            self._check_skipped()
            return
        terms = torch.stack(self._terms).isfinite().cpu()
        weights = torch.stack(torch._foreach_norm(list(self.parameters()))).isfinite().all()
        if terms.all() and weights:
            return
        first, end = self.global_step - len(self._terms), self.global_step
        if not terms.all():
            number = int((~terms).any(1).nonzero()[0])
            values = zip(self._names, self._terms[number].tolist(), strict=True)
            broken = ", ".join(f"{name} {value:g}" for name, value in values)
            where, what = f"step {first + number}", f"a finite loss, found {broken}"
        else:
            name = next(n for n, p in self.named_parameters() if not p.isfinite().all())
            where = f"steps {first} to {end - 1}"
            what = f"finite weights after them, found NaN or inf in {name}"
        checkpoint = Path(self.trainer.default_root_dir) / "checkpoints" / "last.ckpt"
        good = "no checkpoint has been saved"
        if checkpoint.is_file():
            good = f"the last good checkpoint is {checkpoint}"
        raise DivergedError(
            f"{where}: expected {what}; {good}; a smaller optimizer.lr, trainer.gradient_clip or "
            "on_nonfinite=skip may help"
        )

    def _check_skipped(self) -> None:
        if self.skipped > _MAX_SKIPPED and self.skipped > self.global_step // 2:
            raise DivergedError(
                f"step {self.global_step}: expected finite gradients in most steps, found "
                f"{self.skipped} skipped; a smaller optimizer.lr or trainer.gradient_clip may help"
            )

    def _options(self) -> Training:
        if self.training_options is None:
            raise ValueError("training: expected training options, found none")
        return self.training_options

    def _log_curves(self, values: Mapping[str, Tensor]) -> None:
        """Writes the training curves; `self.log` is slower, and counts calls instead of steps."""
        options, step = self._options(), self.global_step - 1
        curves = {f"train/{name}": value.item() for name, value in values.items()}
        if options.temperature is not None:
            curves["train/temperature"] = options.temperature(step)
        curves["train/learning_rate"] = options.learning_rate(step)
        if options.skip_nonfinite:
            curves["train/skipped_steps"] = float(self.skipped)
        self.curves |= curves
        for logger in self.loggers:
            logger.log_metrics(curves, step=step)

    def on_validation_epoch_end(self) -> None:
        """Logs the global step as the x-axis; Lightning would count calls of `training_step`."""
        self.log("step", float(self.global_step))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the configuration as plain values, and the number of skipped steps."""
        checkpoint["config"] = self.config
        checkpoint["skipped"] = self.skipped

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes moments and steps from the checkpoint, but this run's hyperparameters."""
        self.skipped = checkpoint.get("skipped", 0)
        if "optimizer_states" in checkpoint and (optimizer := self.configure_optimizers()):
            states = checkpoint["optimizer_states"][0]
            for stored, own in zip(states["param_groups"], optimizer.param_groups, strict=True):
                stored |= {key: value for key, value in own.items() if key != "params"}

    def log_means(self, values: Mapping[str, Tensor], split: str) -> None:
        """Logs means over the split, weighted by the size of each batch.

        Args:
            values: Name → a value for each image of a batch, (B,).
            split: Prefix of the names.
        """
        for name, value in values.items():
            self.log(
                f"{split}/{name}",
                value.double().mean(),
                on_epoch=True,
                # Lightning averages the sizes over processes and rounds; this keeps them exact.
                batch_size=len(value) * self.trainer.world_size,
                sync_dist=True,
            )


def _evaluation_only(*batch: Any) -> tuple[Tensor, ...]:
    raise ValueError("training_pass: expected a training pass, found none")


def _with_backward(
    training_pass: Callable[..., tuple[Tensor, ...]],
) -> Callable[..., tuple[Tensor, ...]]:
    """The pass followed by its backward pass; the loss has no gradient any more."""

    def compute(*batch: Any) -> tuple[Tensor, ...]:
        loss, *scalars = training_pass(*batch)
        loss.backward()
        return loss.detach(), *scalars

    return compute


def _seed_noise(seed: int, device: torch.device) -> None:
    """Seeds the default generator of a device."""
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)
