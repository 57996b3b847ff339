"""Stage 2: the heads alone on finer data, with feature reconstruction (eq. 13 of the paper).

  python -m hybrid_jax.main --config=configs/finetune.py --workdir=runs/finetune \\
      --config.train.init_from=runs/pretrain --config.data.packed=DIR

starts from the encoder of a stage 1 workdir, whose feature network and statistics stay as they are.
`configs/finetune.py:heads` is the rendered world, `:tiny` takes seconds.
"""

from ml_collections import ConfigDict

from configs import common

VARIANTS = {
  '': common.paper,
  'heads': common.heads,
  'heads_full': common.heads_full,
  'tiny': common.tiny,
}


def get_config(variant: str = '') -> ConfigDict:
  """The config of a variant: '' (the paper), 'heads', 'heads_full' or 'tiny'."""
  if variant not in VARIANTS:
    raise ValueError(f"configs/finetune.py has no variant '{variant}'; it has {sorted(VARIANTS)}")
  return ConfigDict(common.finetune(VARIANTS[variant]()))
