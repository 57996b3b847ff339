"""Training of the hybrid encoder: data, step, loop, checkpoints, checks before a run."""
