"""Training: one loop, its state on disk, and everything that keeps a run trustworthy."""
