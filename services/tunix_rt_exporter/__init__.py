"""Makes datasets from traces: immutable, named by the digest of their manifest."""
