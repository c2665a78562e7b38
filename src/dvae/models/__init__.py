"""Probabilistic models as plain modules of torch."""

from dvae.models.vae import VAE, VAEOutput

__all__ = ["VAE", "VAEOutput"]
