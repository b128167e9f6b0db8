"""Traces and their scores."""
