"""What configurations compute: ${dvae.home:} and the like."""

import math
from typing import Any

from omegaconf import DictConfig, OmegaConf

from dvae.commands.places import home
from dvae.errors import UserError
from dvae.networks import NETWORKS
from dvae.runs.naming import run_name
from dvae.training.optimizers_options import AdamWOptions

__all__ = ["register"]


def register() -> None:
    """Makes them known; all programs in a process share one list, so the names begin with ours."""
    OmegaConf.register_new_resolver("dvae.equal_time", _equal_time, replace=True)
    OmegaConf.register_new_resolver("dvae.home", lambda: str(home()), replace=True)
    OmegaConf.register_new_resolver("dvae.learning_rate", _learning_rate, replace=True)
    OmegaConf.register_new_resolver("dvae.run_name", run_name, replace=True)
    OmegaConf.register_new_resolver("dvae.size", lambda k, n: f"{k}x{n}", replace=True)
    OmegaConf.register_new_resolver("dvae.tuned", _tuned, replace=True)


def _learning_rate(network: str) -> float:
    """The default learning rate of AdamW for a network; tasks may have models of their own."""
    own = NETWORKS[network].learning_rate if network in NETWORKS else None
    return AdamWOptions().lr if own is None else own


def _tuned(table: DictConfig, estimator: str, size: str) -> Any:
    """Looks up an experiment's settings for an estimator and a size."""
    for kind, known, found in (
        ("an estimator", table, estimator),
        ("a size (categories x latents)", table.get(estimator), size),
    ):
        if found not in known:
            raise UserError(
                f"experiment: expected {kind} with tuned settings, one of "
                f"{', '.join(map(str, known))}, found {found}"
            )
    return table[estimator][size]


def _equal_time(epochs: float, times: DictConfig, estimator: str) -> DictConfig:
    """Epochs, and the share of their batches, that take as long as `epochs` do at the time 1."""
    if estimator not in times:
        raise UserError(
            f"experiment: expected an estimator whose time is known, one of {', '.join(times)}, "
            f"found {estimator}; trainer.max_epochs=… needs none"
        )
    for key, value in (("_epochs", epochs), (f"_times.{estimator}", times[estimator])):
        if not isinstance(value, int | float) or not 0 < value < math.inf:
            raise UserError(f"{key}: expected a finite number > 0, found {value}")
    exact = epochs / times[estimator]
    return OmegaConf.create({"epochs": math.ceil(exact), "share": exact / math.ceil(exact)})
