"""Compares gradient estimators with the exact gradient: `python scripts/gradients.py`."""

from dvae.console.gradients import main

if __name__ == "__main__":
    main()
