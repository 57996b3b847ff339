"""Programs compiled for a TPU or a GPU that is not here: memory, cost, and where both come from."""
