"""The contract of tasks: configurations, how objects are built from them, what can be drawn.

Nothing here imports torch before something is built, so that mistakes are answered at once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from dvae.errors import UserError, nearest
from dvae.tasks.options import EvaluateConfig, FromCheckpointConfig, SampleConfig
from dvae.training.config import RunConfig, StoredConfig

if TYPE_CHECKING:
    from pytorch_lightning.callbacks import Callback
    from torch import Generator, Tensor

    from dvae.data.base import TaskData
    from dvae.training.module import TaskModule

__all__ = ["Drawing", "Task"]

Stored = TypeVar("Stored", bound=StoredConfig)
Config = TypeVar("Config", bound=RunConfig)
Data = TypeVar("Data", bound="TaskData")
Module = TypeVar("Module", bound="TaskModule")

_OPTIONAL = ("num_samples", "num_episodes", "batch_size", "max_decodes", "num_steps", "split")


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


class Task(ABC, Generic[Stored, Config, Data, Module]):
    """One thing to train.

    Attributes:
        stored: The configuration that a checkpoint needs: a part of `config`.
        config: The configuration of a run.
        selected_by: The metric that checkpoints and runs are chosen by: validation, never test;
            more is better.
        drawings: What `scripts/sample.py` can draw, and how many images by default; the first
            one is drawn where nothing is asked for.
        options: Keys of `scripts/evaluate.py` and `scripts/sample.py` that have an effect, of
            those that not every task has.
    """

    stored: type[Stored]
    config: type[Config]
    selected_by: ClassVar[str] = "val/elbo"
    drawings: ClassVar[Mapping[str, int]]
    options: ClassVar[frozenset[str]] = frozenset()

    @property
    def name(self) -> str:
        """Its name in configurations: that of its folder."""
        return type(self).__module__.split(".")[-2]

    @abstractmethod
    def data(self, config: Config) -> Data:
        """The data of a run."""

    @abstractmethod
    def stored_data(self, stored: Stored, config: FromCheckpointConfig) -> Data:
        """The data of a checkpoint, changed by what a script's configuration overrides."""

    @abstractmethod
    def module(self, config: Config, data: Data) -> Module:
        """A module to train."""

    @abstractmethod
    def restore(self, stored: Stored) -> Module:
        """A module for a checkpoint's weights."""

    def callbacks(self, config: Config) -> list[Callback]:
        """Callbacks that only this task has; none by default."""
        return []

    @abstractmethod
    def draw(
        self, module: Module, data: Data, what: str, config: SampleConfig, generator: Generator
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
