"""Judging re-enacted videos: metrics, and networks that no loss has seen."""
