"""Audits of a dataset: what a model would learn of it, and what of it leaks an eval set."""
