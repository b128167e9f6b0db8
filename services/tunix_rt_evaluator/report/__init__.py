"""Comparison reports as documents: Markdown, JSON and HTML."""
