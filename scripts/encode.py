"""Encodes images to codes: `python scripts/encode.py checkpoint=PATH [key=value]`."""

from dvae.console.encode import main

if __name__ == "__main__":
    main()
