"""Foreign weight files: `files` reads the bytes, `kinds` gives tensors their place by `key_maps`.

`symbols`, `modules` and `torch_file` read PyTorch's formats without PyTorch; `converted` keeps what
came of a file; `load` hands it to a run.
"""
