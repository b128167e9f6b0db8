"""Tells reasoning from the answer in what a model wrote; see docs/adr/0029."""
