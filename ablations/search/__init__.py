"""Search: settings proposed by Optuna, run as Ray Tune trials, recorded in a storage that outlives the process."""
