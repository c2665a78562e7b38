"""Encodes images to codes: `python scripts/encode.py checkpoint=PATH [key=value]`."""

from dvae.commands.cli import run
from dvae.tasks.options import EncodeConfig


def main(config: EncodeConfig) -> None:
    """Writes the codes of whole splits."""
    from dvae.commands.encode import encode

    encode(config)


if __name__ == "__main__":
    run("encode", EncodeConfig, main)
