"""Datasets: traces that were selected, deduplicated, decontaminated, split and rendered."""
