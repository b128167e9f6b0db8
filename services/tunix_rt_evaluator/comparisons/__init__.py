"""Comparisons of two evaluations that asked the same items."""
