"""Benchmarks of training and evaluation."""
