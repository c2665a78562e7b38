"""Fits a prior to the codes of a trained VAE."""
