"""Structured output prediction: the lower half of a digit from the upper half."""
