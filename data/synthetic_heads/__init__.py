"""Packed data of the rendered world, see data/README.md."""

from data.synthetic_heads.synthetic_heads import SyntheticHeads as SyntheticHeads
