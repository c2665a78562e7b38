"""A run's folder, resuming, and sweeps."""
