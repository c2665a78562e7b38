"""Folders of runs, resuming and sweeps."""
