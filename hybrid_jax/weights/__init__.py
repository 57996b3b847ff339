"""Weight files in and out: reads, converts, loads and exports; README.md says which file does what.

The way in: `files` reads bytes, `public_formats` recognises the kind, a `read_*` module places the
tensors by `key_maps`, and `load` hands the trees to a run. The way out: `export`.
"""
