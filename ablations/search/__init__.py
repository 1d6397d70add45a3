"""Search: settings proposed by Optuna, tried as Ray Tune trials, kept in a storage that outlives the process."""
