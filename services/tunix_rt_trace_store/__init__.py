"""Keeps traces, each exactly as it was written, in the order in which they were committed."""
