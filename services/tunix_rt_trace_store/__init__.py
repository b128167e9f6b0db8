"""Stores traces, each exactly as it was written, in the order of their commits."""
