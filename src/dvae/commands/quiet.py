"""Silences what libraries print and a user cannot act on."""

import logging
import warnings

__all__ = ["LEVELS", "quiet"]

LEVELS = {
    "pytorch_lightning": logging.WARNING,
    "lightning_fabric": logging.WARNING,
    # The first start builds a font cache; without a home folder, every start does.
    "matplotlib": logging.ERROR,
    # At each compilation, torch remarks that the machine has no GPU.
    "torch.utils.cpp_extension": logging.ERROR,
}
"""Name of a logger → its level."""
_WARNINGS = (
    # The data are in memory, so that workers would not help.
    ".*does not have many workers.*",
    # A resumed run finds its own checkpoints.
    ".*Checkpoint directory .* is not empty.*",
    # Code statistics are already summed over processes when they are logged.
    ".*recommended to use `self.log.*sync_dist=True.*",
    ".*LeafSpec.* is deprecated.*",
    # The first line of a run says which GPU is not used, and why.
    ".*GPU available but not used.*",
    # Frozen parts of a model stay in evaluation mode.
    ".*module\\(s\\) in eval mode at the start of training.*",
)


def quiet() -> None:
    """Sets the levels of these loggers and ignores these warnings, in this process."""
    for name, level in LEVELS.items():
        logging.getLogger(name).setLevel(level)
    for message in _WARNINGS:
        warnings.filterwarnings("ignore", message=message)
