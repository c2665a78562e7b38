"""Converts configurations of earlier versions to the current one."""

from collections.abc import Mapping
from typing import Any

__all__ = ["migrate"]

_RELAXATIONS = ("gumbel_rao", "reinmax_rao")
_WITH_LOGITS = ("vae", "prior")
"""Tasks whose first versions had softmax logits and did not say so."""


def migrate(values: Mapping[str, Any]) -> dict[str, Any]:
    """Converts a configuration to the current version; a current one stays unchanged.

    Args:
        values: The configuration of a run or checkpoint, as plain values.
    """
    # The first versions trained VAEs only and named no task.
    config = {"task": "vae", **values}
    estimator = config.get("estimator")
    if isinstance(estimator, dict) and estimator.get("name") in _RELAXATIONS:
        # `num_samples` used to mean the number of relaxed samples here.
        renamed = {"num_samples": "num_relaxations"}
        config["estimator"] = {renamed.get(key, key): value for key, value in estimator.items()}
    if config["task"] in _WITH_LOGITS and "model" in config:
        config.setdefault("logits", "softmax")
    return config
