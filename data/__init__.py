"""Builders of packed training data, see README.md."""
