"""Checkpoints: what a training job leaves."""
