"""The report: the findings of the studies and their limits."""
