"""Where things are computed and kept: the store, claims on it, checkpoints, worker processes, copies side by side."""
