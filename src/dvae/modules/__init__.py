"""Thin LightningModules, one a model."""
