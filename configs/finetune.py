"""Stage 2: the heads alone on finer data, with feature reconstruction (Eq. (13) of the paper).

  python -m hybrid_jax.main --config=configs/finetune.py \\
      --config.train.init_from=runs/pretrain --config.data.packed=DIR

Starts from the encoder of a stage 1 workdir and keeps its feature network and running statistics:
20,000 steps in the paper. Variants and devices as in configs/pretrain.py.
"""

from ml_collections import ConfigDict

from configs import common, variants


def get_config(variant: str = '') -> ConfigDict:
  """Returns stage 2 of a variant of configs/variants.py; '' is the paper's."""
  return ConfigDict(common.finetune(variants.chosen(variant)))
