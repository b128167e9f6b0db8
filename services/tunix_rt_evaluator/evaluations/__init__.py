"""Evaluations: a model answers the items of an eval set, and the answers are graded."""
