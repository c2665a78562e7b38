"""The contract of tasks: configurations, the objects built from them, and drawings.

This module does not import torch, so that errors in a configuration are reported at once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from dvae.errors import UserError, nearest
from dvae.tasks.options import EncodeConfig, EvaluateConfig, FromCheckpointConfig, SampleConfig
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

_OPTIONAL = (
    "num_samples",
    "num_episodes",
    "batch_size",
    "max_decodes",
    "num_steps",
    "split",
    "images",
    "codes",
    "sampling_temperature",
    "label",
    "keep",
    "separate",
)


@dataclass(frozen=True)
class Drawing:
    """Output of `scripts/sample.py`.

    Attributes:
        pictures: A picture (3 or 1, H, W), written as PNG, or the frames of a film
            (T, 3 or 1, H, W), written as GIF; in [0, 1].
        codes: The integer codes that were decoded, (..., N), or the actions of a film.
        seconds: Duration of a frame.
        images: The image of each code, (M, 3 or 1, H, W) in [0, 1], if they are written too.
    """

    pictures: Tensor
    codes: Tensor
    seconds: float = 0.02
    images: Tensor | None = None


class Task(ABC, Generic[Stored, Config, Data, Module]):
    """Something to train: its configuration, data, module and drawings.

    Attributes:
        stored: The part of `config` from which a checkpoint's model is rebuilt.
        config: The configuration of a run.
        selected_by: The validation metric that selects checkpoints and runs; higher is better.
        drawings: Drawings of `scripts/sample.py`, with their default number of images; the first
            one is the default.
        options: The optional keys of `scripts/evaluate.py` and `scripts/sample.py` that this task
            uses.
    """

    stored: type[Stored]
    config: type[Config]
    selected_by: ClassVar[str] = "val/elbo"
    drawings: ClassVar[Mapping[str, int]]
    options: ClassVar[frozenset[str]] = frozenset()

    @property
    def name(self) -> str:
        """Name in configurations: the name of the task's folder."""
        return type(self).__module__.split(".")[-2]

    @abstractmethod
    def data(self, config: Config) -> Data:
        """The data of a run."""

    @abstractmethod
    def stored_data(self, stored: Stored, config: FromCheckpointConfig) -> Data:
        """The data of a checkpoint, with the overrides of a script's configuration."""

    @abstractmethod
    def module(self, config: Config, data: Data) -> Module:
        """A module to train."""

    @abstractmethod
    def restore(self, stored: Stored) -> Module:
        """A module into which a checkpoint's weights can be loaded.

        It is also built on torch's "meta" device, which has no memory, to compare sizes first.
        """

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
            config: Number of images and split.
            generator: Source of randomness on the module's device.

        Raises:
            UserError: If the split has too few images.
        """

    def check_options(self, config: FromCheckpointConfig) -> None:
        """Checks that a script's configuration sets only keys that this task uses.

        Raises:
            UserError: If it sets another key.
        """
        values: dict[str, Any] = {f"data.{key}": value for key, value in config.data}
        values["relaxed_temperature"] = config.relaxed_temperature
        values |= {key: getattr(config, key, None) for key in _OPTIONAL}
        if isinstance(config, EvaluateConfig):
            values.pop("split")
        if isinstance(config, EncodeConfig):
            values.pop("codes")
        for key, value in values.items():
            if value is not None and key not in self.options:
                raise UserError(
                    f"{key}: expected null with a checkpoint of task={self.name}, "
                    f"where it has no effect, found {value}"
                )

    def check_drawing(self, what: str | None) -> str:
        """Checks the name of a drawing; None becomes the first one.

        Raises:
            UserError: If the task has no such drawing.
        """
        names = list(self.drawings)
        if what is not None and what not in names:
            raise UserError(
                f"what: expected one of {', '.join(names)}, found {what!r}{nearest(what, names)}"
            )
        return what or names[0]
