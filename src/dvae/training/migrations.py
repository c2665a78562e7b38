"""Configurations that earlier versions have written, in the words of this one."""

from collections.abc import Mapping
from typing import Any

__all__ = ["migrate"]

_RELAXATIONS = ("gumbel_rao", "reinmax_rao")


def migrate(values: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration as this version would have written it; one of this version is unchanged.

    Args:
        values: The configuration of a run or checkpoint, as plain values.
    """
    # Before there were other tasks, a VAE was what was trained.
    config = {"task": "vae", **values}
    estimator = config.get("estimator")
    if isinstance(estimator, dict) and estimator.get("name") in _RELAXATIONS:
        # The same word stood for relaxed samples and for draws of codes.
        renamed = {"num_samples": "num_relaxations"}
        config["estimator"] = {renamed.get(key, key): value for key, value in estimator.items()}
    return config
