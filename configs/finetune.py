"""Stage 2: the heads alone on finer data, with feature reconstruction (Eq. (13) of the paper).

  python -m hybrid_jax.main --config=configs/finetune.py \\
      --config.train.init_from=runs/pretrain --config.data.packed=DIR

Starts from the encoder of a stage 1 workdir and keeps its feature network and running statistics:
20,000 steps in the paper. `:heads`, `:heads_full` and `:tiny` as in configs/pretrain.py.
"""

from ml_collections import ConfigDict

from configs import common

VARIANTS = {
  '': common.paper,
  'heads': common.heads,
  'heads_full': common.heads_full,
  'heads_256': common.heads_256,
  'tiny': common.tiny,
}


def get_config(variant: str = '') -> ConfigDict:
  """Returns the config of a variant of `VARIANTS`; '' is the paper's."""
  if variant not in VARIANTS:
    raise ValueError(f"configs/finetune.py has no variant '{variant}'; it has {sorted(VARIANTS)}")
  return ConfigDict(common.finetune(VARIANTS[variant]()))
