"""What is needed to reproduce a run: command, versions, commit and hardware."""

import os
import platform
import subprocess
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig

from dvae import __version__
from dvae.runs.program import own_command
from dvae.training.devices import has_gpu

__all__ = ["provenance"]

_PACKAGES = ("torch", "torchvision", "pytorch-lightning", "torchmetrics", "hydra-core")


def provenance(overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Command line, versions, commit and hardware, as plain values.

    Args:
        overrides: The overrides of a run that was started from Python.
    """
    hydra = HydraConfig.get() if HydraConfig.initialized() else None
    return {
        "command": own_command(),
        "overrides": list(hydra.overrides.task if hydra else overrides),
        "config_dir": _config_dir(),
        "folder": str(Path.cwd()),
        "commit": _commit(),
        "python": platform.python_version(),
        "packages": {"dvae": __version__} | {name: _version(name) for name in _PACKAGES},
        "system": platform.platform(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        if has_gpu()
        else [],
        "cuda": torch.version.cuda,
    }


def _version(package: str) -> str | None:
    """The version of a package; None if it was installed without saying one."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _config_dir() -> str | None:
    """The folder of further configurations that the command names; None if it names none."""
    if not HydraConfig.initialized():
        return None
    sources = HydraConfig.get().runtime.config_sources
    folders = [source.path for source in sources if source.provider == "command-line"]
    return folders[0] if folders else None


def _commit() -> str | None:
    """The commit of the source, with a + if there are uncommitted changes; None without git."""
    source = Path(__file__)
    git = ["git", "-C", str(source.parent)]
    options: Any = {"capture_output": True, "encoding": "utf-8", "errors": "replace"}
    # An installed package can lie in an environment in the repository of another project.
    tracked = ["ls-files", "--error-unmatch", source.name]
    try:
        _, commit, changes = (
            subprocess.run([*git, *command], **options, timeout=5, check=True)
            for command in (tracked, ["rev-parse", "HEAD"], ["status", "--porcelain", "--", "."])
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return commit.stdout.strip() + ("+" if changes.stdout else "")


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text("utf-8", "replace").splitlines() if info.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor()
