"""The variational autoencoder with categorical latents."""
