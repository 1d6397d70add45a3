"""Training: one loop, its state on disk, and the checks that keep a run trustworthy."""
