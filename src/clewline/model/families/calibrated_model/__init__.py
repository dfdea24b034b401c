"""Classifiers whose probabilities are mapped to calibrated ones."""
