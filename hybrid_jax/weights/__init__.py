"""Foreign weight files: `torch_file` reads the bytes, `key_maps` gives tensors their place."""
