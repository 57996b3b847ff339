"""Variants of configs/pretrain.py and configs/finetune.py, and what a device changes of them.

An argument is the name of a variant, of a device, or several joined by '+': 'tiny+v5e1'.
"""

from configs import common

VARIANTS = {
  'paper': common.paper,
  'heads': common.heads,
  'heads_full': common.heads_full,
  'heads_256': common.heads_256,
  'tiny': common.tiny,
}
# How 8 triplets at 1024 px fit the memory of a device (`hybrid_jax.doctor --topology`).
DEVICES = {
  # One TPU v5e, 16 GB, as Colab lends it: two triplets at a time, the 512 and 1024 px layers again
  # in the backward pass: 14.9 GiB by its compiler (experiments/results/accelerators.json).
  'v5e1': {'optim': {'micro_batches': 4}, 'model': {'remat_from': 512}},
  # Eight of them: a triplet each, and an eighth of the state: 9.3 GiB of 16.
  'v5e8': {},
  # One TPU v6e, 32 GB: two triplets at a time: 18.7 GiB.
  'v6e1': {'optim': {'micro_batches': 4}},
  # One H100, 80 GB: all at once: 29.5 GiB.
  'h100': {},
}


def chosen(argument: str) -> dict:
  """Returns the config of an argument; '' and a device alone take the paper's.

  Raises:
    ValueError: an unknown name, or more than one variant.
  """
  names = [name for name in argument.split('+') if name]
  for name in names:
    if name not in VARIANTS | DEVICES:
      raise ValueError(f"no variant '{name}'; take of {[*VARIANTS]}, or {[*DEVICES]} ('tiny+v5e1')")
  bases = [name for name in names if name in VARIANTS]
  if len(bases) > 1:
    raise ValueError(f"'{argument}' names {len(bases)} variants; take one of {[*VARIANTS]}")
  config = VARIANTS[bases[0] if bases else 'paper']()
  for name in names:
    config = common.merged(config, DEVICES.get(name, {}))
  return config
