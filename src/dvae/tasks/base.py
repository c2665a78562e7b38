"""What a task declares: its configuration, how its objects are built, what can be drawn from it.

Nothing here imports torch before something is built, so that mistakes are answered at once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from dvae.commands.schemas import RunConfig, StoredConfig
from dvae.commands.script_schemas import EvaluateConfig, FromCheckpointConfig, SampleConfig
from dvae.errors import UserError, nearest

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from dvae.data.base import TaskData
    from dvae.schedules import Schedule
    from dvae.training.module import TaskModule

__all__ = ["IMAGE_OPTIONS", "Drawing", "Task"]

IMAGE_OPTIONS = frozenset(
    {
        "data.name",
        "data.binarization",
        "data.validation",
        "relaxed_temperature",
        "num_samples",
        "batch_size",
        "max_decodes",
        "split",
    }
)
"""Options of scripts, see `Task.options`, that all tasks with images have."""

_OPTIONAL = ("num_samples", "batch_size", "max_decodes", "num_steps", "split")


@dataclass(frozen=True)
class Drawing:
    """What `scripts/sample.py` writes.

    Attributes:
        pictures: A picture (3 or 1, H, W), written as PNG, or the frames of a film
            (T, 3 or 1, H, W), written as GIF; in [0, 1].
        codes: The integer codes behind it, (..., N).
        seconds: How long a frame stays.
    """

    pictures: Tensor
    codes: Tensor
    seconds: float = 0.02


class Task(ABC):
    """One thing to train.

    Attributes:
        config: Schema of a run.
        stored: Schema of what a checkpoint needs of it: a part of `config`.
        selected_by: The metric that checkpoints and runs are chosen by: validation, never test;
            more is better.
        drawings: What `scripts/sample.py` can draw, and how many images by default; the first
            one is drawn where nothing is asked for.
        options: Keys of `scripts/evaluate.py` and `scripts/sample.py` that have an effect, of
            those that not every task has.
        measures_gradient: Whether `callbacks.gradient_snr` can be measured.
    """

    config: ClassVar[type[RunConfig]]
    stored: ClassVar[type[StoredConfig]]
    selected_by: ClassVar[str] = "val/elbo"
    drawings: ClassVar[Mapping[str, int]]
    options: ClassVar[frozenset[str]] = frozenset()
    measures_gradient: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """Its name in configurations: that of its folder."""
        return type(self).__module__.split(".")[-2]

    def check(self, config: Any) -> None:
        """Refuses options of a run that would have no effect, or that contradict one another.

        Raises:
            UserError: One line that names the option, what was expected and what was found.
        """
        watched, data = config.callbacks, getattr(config, "data", None)
        if watched.gradient_snr is not None and not self.measures_gradient:
            raise UserError(
                f"callbacks.gradient_snr: expected null with task={self.name}, "
                f"found {watched.gradient_snr}"
            )
        if watched.early_stopping is not None and getattr(data, "validation", None) == 0:
            raise UserError(
                "callbacks.early_stopping: expected null with data.validation=0, where there is "
                f"nothing to select by but the test images, found {watched.early_stopping}"
            )

    @abstractmethod
    def data(self, config: Any) -> TaskData:
        """The data of a run."""

    @abstractmethod
    def stored_data(self, stored: Any, config: FromCheckpointConfig) -> TaskData:
        """The data of a checkpoint, changed by what a script's configuration overrides."""

    @abstractmethod
    def module(self, config: Any, data: Any) -> TaskModule:
        """A module to train."""

    @abstractmethod
    def restore(self, stored: Any) -> TaskModule:
        """A module for a checkpoint's weights."""

    def schedules(self, config: Any, total_steps: int) -> dict[str, Schedule]:
        """What changes with the step in a run of so many, by name."""
        from dvae.commands.build import build_learning_rate, build_temperature

        temperature = build_temperature(config, total_steps)
        schedules: dict[str, Schedule] = {} if temperature is None else {"temperature": temperature}
        return schedules | {"learning_rate": build_learning_rate(config, total_steps)}

    @abstractmethod
    def draw(
        self, module: Any, data: Any, what: str, config: SampleConfig, generator: Generator
    ) -> Drawing:
        """Draws one of `drawings`.

        Args:
            module: A module with a checkpoint's weights.
            data: The checkpoint's data.
            what: Which drawing.
            config: How many images, from which split.
            generator: Source of randomness on the module's device.

        Raises:
            UserError: If there are not so many images.
        """

    def check_options(self, config: FromCheckpointConfig) -> None:
        """Refuses what a script was given and has no effect for this task.

        Raises:
            UserError: One line.
        """
        values: dict[str, Any] = {f"data.{key}": value for key, value in config.data}
        values["relaxed_temperature"] = config.relaxed_temperature
        values |= {key: getattr(config, key, None) for key in _OPTIONAL}
        if isinstance(config, EvaluateConfig):
            values.pop("split")
        for key, value in values.items():
            if value is not None and key not in self.options:
                raise UserError(
                    f"{key}: expected null with a checkpoint of task={self.name}, "
                    f"where it has no effect, found {value}"
                )

    def check_drawing(self, what: str | None) -> str:
        """The drawing of a name; the first one where there is none.

        Raises:
            UserError: If it is not one of them.
        """
        names = list(self.drawings)
        if what is not None and what not in names:
            raise UserError(
                f"what: expected one of {', '.join(names)}, found {what!r}{nearest(what, names)}"
            )
        return what or names[0]
