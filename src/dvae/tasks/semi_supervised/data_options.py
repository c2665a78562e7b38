"""Options of training images of which only a few have labels."""

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
        num_labels: Labelled images, equally many per class, drawn by the seed.
        labelled_batch_size: Labelled images in a training batch, summed over all processes.
    """

    num_labels: Count = 100
    labelled_batch_size: Count = 50

    def build(self, root: str | Path, seed: int, **loading: Any) -> LabelledImageDataModule:
        """Builds the data module; see `ImageDataOptions.build`."""
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
"""Name → options of the sources whose images have labels."""

if TYPE_CHECKING:
    AnyLabelledData = LabelledOptions
else:
    AnyLabelledData = union_of(LABELLED)
