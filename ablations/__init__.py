"""What is compared: studies, plans, executors, the store of trials, and the report."""
