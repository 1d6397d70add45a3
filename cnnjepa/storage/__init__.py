"""Files that survive crashes, locks between processes, and the journal of a run."""
