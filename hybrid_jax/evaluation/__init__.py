"""Measures re-enacted videos: metrics, and judges that are part of no loss."""
