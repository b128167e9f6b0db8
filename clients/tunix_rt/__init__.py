"""tunix-rt: reasoning traces in, evidence that fine-tuning on them helped out."""
