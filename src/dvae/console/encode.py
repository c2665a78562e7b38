"""Encodes images to codes: `dvae encode`."""

from dvae.commands.cli import run
from dvae.tasks.options import EncodeConfig

__all__ = ["main"]


def main() -> None:
    """Runs the command with the arguments of this process."""
    run("encode", EncodeConfig, _encode)


def _encode(config: EncodeConfig) -> None:
    """Writes the codes of whole splits."""
    from dvae.commands.encode import encode
    from dvae.training.devices import tune_process

    tune_process()
    encode(config)


if __name__ == "__main__":
    main()
