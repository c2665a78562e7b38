"""Semi-supervised classification: the class of an image is a categorical latent."""
