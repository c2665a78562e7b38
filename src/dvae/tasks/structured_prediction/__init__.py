"""Structured output prediction: predicts the lower half of an image from the upper half."""
