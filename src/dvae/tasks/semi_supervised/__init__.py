"""Semi-supervised classification: the class of a digit is a categorical latent."""
