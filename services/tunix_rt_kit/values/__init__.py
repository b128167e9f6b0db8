"""Values that services share."""
