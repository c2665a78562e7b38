"""The part of a run's configuration that all tasks share."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import PrivateAttr, model_validator

from dvae.errors import UserError
from dvae.estimators import AnyEstimator
from dvae.options import Options, PathName, Seed
from dvae.schedules import Schedule
from dvae.training import OPTIMIZERS, AnyOptimizer, AnyTemperature
from dvae.training.options import CallbackOptions, PathOptions, TrainerOptions
from dvae.training.temperatures_options import NoTemperature

if TYPE_CHECKING:
    from dvae.layers import CategoricalLayer
    from dvae.training.settings import Training

__all__ = ["LayerRunConfig", "RunConfig", "StoredConfig", "StoredLayerConfig"]


class StoredConfig(Options):
    """The part of the configuration from which a checkpoint's model is rebuilt, in any task."""

    task: str
    seed: Seed = 0


class StoredLayerConfig(StoredConfig):
    """The same, in tasks that draw codes by an estimator."""

    estimator: AnyEstimator
    temperature: AnyTemperature

    def build_layer(self) -> CategoricalLayer:
        """A new layer that draws codes, with a new estimator."""
        from dvae.layers import CategoricalLayer

        return CategoricalLayer(self.temperature.start, self.estimator.build())


class RunConfig(StoredConfig):
    """The configuration of any run; each task extends it.

    Attributes:
        measures_gradient: Whether `callbacks.gradient_snr` can be measured in runs of the task.
    """

    measures_gradient: ClassVar[bool] = False

    optimizer: AnyOptimizer
    trainer: TrainerOptions
    callbacks: CallbackOptions
    paths: PathOptions
    precision: Literal[16, 32, 64, "bf16"] = 32
    compile: bool = False
    fast: bool = False
    on_nonfinite: Literal["stop", "skip"] = "stop"
    resume: PathName | None = None
    _overrides: tuple[str, ...] = PrivateAttr(default=())

    @property
    def overrides(self) -> tuple[str, ...]:
        """The overrides that `dvae.compose` was given; empty on the command line, see Hydra's."""
        return self._overrides

    def schedules(self, total_steps: int) -> dict[str, Schedule]:
        """The schedules of a run of `total_steps` steps, by name."""
        return {"learning_rate": self.optimizer.learning_rate(total_steps)}

    def remarks(self, total_steps: int) -> list[str]:
        """Lines on what may be unexpected in a run of `total_steps` steps, most about schedules."""
        return [*self.optimizer.remarks(total_steps), *self.trainer.remarks()]

    def build_training(self, total_steps: int) -> Training:
        """The training options of a run of `total_steps` steps."""
        from dvae.training.settings import Training

        return Training(
            optimizer=self.optimizer.build,
            learning_rate=self.optimizer.learning_rate(total_steps),
            gradient_clip=self.trainer.gradient_clip,
            seed=self.seed,
            log_every=self.trainer.log_every,
            skip_nonfinite=self.on_nonfinite == "skip",
        )

    @model_validator(mode="after")
    def _check_clipping(self) -> Self:
        # Fused optimizers unscale gradients inside `step`, too late for a clipped norm.
        if self.precision == 16 and self.trainer.gradient_clip and self.optimizer.fused:
            others = " or ".join(name for name, kind in OPTIMIZERS.items() if not kind.fused)
            raise UserError(
                f"trainer.gradient_clip: expected 0.0 with precision=16 and "
                f"optimizer={self.optimizer.name}, found {self.trainer.gradient_clip}; "
                f"precision=bf16 or optimizer={others} can clip"
            )
        return self

    @model_validator(mode="after")
    def _check_validation(self) -> Self:
        if self.trainer.validate_every > self.trainer.max_epochs:
            raise UserError(
                "trainer.validate_every: expected at most trainer.max_epochs="
                f"{self.trainer.max_epochs}, found {self.trainer.validate_every}"
            )
        return self

    @model_validator(mode="after")
    def _check_gradient_noise(self) -> Self:
        if self.callbacks.gradient_snr is not None and not self.measures_gradient:
            raise UserError(
                f"callbacks.gradient_snr: expected null with task={self.task}, "
                f"found {self.callbacks.gradient_snr}"
            )
        return self


class LayerRunConfig(StoredLayerConfig, RunConfig):
    """The configuration of a run that draws codes by an estimator."""

    def schedules(self, total_steps: int) -> dict[str, Schedule]:
        """Adds the temperature; see `RunConfig.schedules`."""
        temperature = self.temperature.schedule(total_steps)
        schedules = {} if temperature is None else {"temperature": temperature}
        return schedules | super().schedules(total_steps)

    def remarks(self, total_steps: int) -> list[str]:
        """Adds those on the temperature; see `RunConfig.remarks`."""
        return self.temperature.remarks(total_steps) + super().remarks(total_steps)

    def build_training(self, total_steps: int) -> Training:
        """Adds the temperature; see `RunConfig.build_training`."""
        temperature = self.temperature.schedule(total_steps)
        return replace(super().build_training(total_steps), temperature=temperature)

    @model_validator(mode="after")
    def _check_temperature(self) -> Self:
        name, without = self.estimator.name, not self.estimator.uses_temperature
        if without == isinstance(self.temperature, NoTemperature):
            return self
        raise UserError(
            f"temperature: expected none with estimator={name}, which has no temperature, found "
            f"{self.temperature.name}; give temperature=none"
            if without
            else f"temperature: expected a schedule with estimator={name}, found none"
        )
