"""Studies, plans, executors, the pool of trials, and the report."""
