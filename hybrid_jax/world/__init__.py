"""The embedded world: rendered talking heads of which identity, motion and scene are known."""
