"""Base of the LightningModules that report how codes are used."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from torch import Tensor

from dvae.models.usage import CodeUsage
from dvae.training.module import TaskModule
from dvae.training.settings import Evaluation, Training

__all__ = ["CodeModule"]


class CodeModule(TaskModule):
    """A task that reports how its codes are used, over a whole split.

    Args:
        usage: Counts codes; its metrics are logged with the others.
        training_pass: See `TaskModule`.
        training: See `TaskModule`.
        evaluation: See `TaskModule`.
        config: See `TaskModule`.
    """

    units: ClassVar[Mapping[str, str]] = {
        "usage_perplexity": "categories, mean over latents",
        "latent_information": "nats, mean over latents",
        "active_latents": "latents",
        "dead_categories": "% of categories",
        "codebook_perplexity": "categories, over all latents",
    }

    def __init__(
        self,
        usage: CodeUsage,
        training_pass: Callable[..., tuple[Tensor, ...]] | None,
        training: Training | None = None,
        evaluation: Evaluation | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(training_pass, training, evaluation, config)
        self.usage = usage

    def on_validation_epoch_start(self) -> None:
        """Resets the counts."""
        self.usage.reset()

    def on_test_epoch_start(self) -> None:
        """Resets the counts."""
        self.usage.reset()

    def on_validation_epoch_end(self) -> None:
        """Logs statistics of the codes over the split."""
        super().on_validation_epoch_end()
        self._log_usage("val")

    def on_test_epoch_end(self) -> None:
        """Logs statistics of the codes over the split."""
        self._log_usage(self.evaluation.split)

    def concerns(self, metrics: Mapping[str, float], data: Any) -> dict[str, str]:
        """Warns if most categories are dead; see `TaskModule.concerns`."""
        share = self.usage.dead_share().item()
        if share <= 0.5:
            return {}
        return {
            "dead categories": f"{share:.0%} of the categories are used less than a tenth as often "
            "as on average; fewer categories, a higher temperature or a smaller optimizer.lr may "
            "help"
        }

    def _log_usage(self, split: str) -> None:
        self.log_dict({f"{split}/{name}": value for name, value in self.usage.compute().items()})

    def details(self) -> dict[str, list[float]]:
        """For each latent: usage perplexity, and information about the input in nats."""
        return {
            "usage_perplexity": self.usage.perplexity().tolist(),
            "information": self.usage.information().tolist(),
        }
