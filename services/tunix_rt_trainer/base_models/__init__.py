"""Base models on this host."""
