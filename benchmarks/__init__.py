"""What things cost, as ratios in one run against a stated peer."""
