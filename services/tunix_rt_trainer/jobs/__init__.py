"""Training jobs: from their spec to the checkpoint."""
