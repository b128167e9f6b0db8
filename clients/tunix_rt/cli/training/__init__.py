"""`tunix-rt train`: one module for each thing that is done with training jobs."""

from tunix_rt.cli.training import exporting, following, starting
from tunix_rt.cli.training.app import app

__all__ = ["app", "exporting", "following", "starting"]
