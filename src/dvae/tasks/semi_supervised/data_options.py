"""Options of images of which a few come with their class."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import create_model

from dvae.data.options import ImageDataOptions
from dvae.data.sources import SOURCES
from dvae.options import Count, union_of

if TYPE_CHECKING:
    from dvae.tasks.semi_supervised.data import LabelledImageDataModule

__all__ = ["LABELLED", "AnyLabelledData", "LabelledOptions"]


class LabelledOptions(ImageDataOptions):
    """See `dvae.tasks.semi_supervised.data.LabelledImageDataModule`.

    Attributes:
        num_labels: Labelled images, as many of each class, drawn by the seed.
        labelled_batch_size: How many of them are in a training batch, over all processes together.
    """

    num_labels: Count = 100
    labelled_batch_size: Count = 50

    def build(self, root: str | Path, seed: int, **loading: Any) -> LabelledImageDataModule:
        """The images in splits and batches; see `ImageDataOptions.build`."""
        from dvae.tasks.semi_supervised.data import LabelledImageDataModule

        return LabelledImageDataModule(
            self.build_source(Path(root)),
            seed=seed,
            num_labels=self.num_labels,
            labelled_batch_size=self.labelled_batch_size,
            **self.splitting(),
            **loading,
        )


LABELLED: dict[str, type[LabelledOptions]] = {
    name: create_model(f"Labelled{source.__name__}", __base__=(source, LabelledOptions))  # type: ignore[arg-type]
    for name, source in SOURCES.items()
    if source.num_classes is not None
}
"""The sources whose images have labels, by name."""

if TYPE_CHECKING:
    AnyLabelledData = LabelledOptions
else:
    AnyLabelledData = union_of(LABELLED)
