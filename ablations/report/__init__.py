"""The report: what the studies found, with what can and cannot be said about it."""
