"""Packed data of face videos, see data/README.md."""
