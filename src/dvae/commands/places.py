"""Where configurations and outputs lie."""

from pathlib import Path

__all__ = ["CONFIGS", "ROOT", "home"]

ROOT = Path(__file__).resolve().parents[3]
"""The clone that the package is used from, if it is not installed without one."""
_INSTALLED = Path(__file__).resolve().parents[1] / "configs"
CONFIGS = _INSTALLED if _INSTALLED.is_dir() else ROOT / "configs"
"""The folder of configurations; a wheel carries a copy of it."""


def home() -> Path:
    """The folder that `outputs` lies in: the clone, or the current folder without one."""
    return Path.cwd() if CONFIGS == _INSTALLED else ROOT
