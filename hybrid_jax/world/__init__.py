"""The rendered world: talking heads with known identity, motion and scene."""
