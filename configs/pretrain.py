"""Stage 1: pre-training of the hybrid encoder (section 3.2 of the paper).

  python -m hybrid_jax.main --config=configs/pretrain.py \\
      --config.data.videos=DIR --config.data.face_detector=face_detection_yunet.onnx

The default is the paper's 1024 px model: 200,000 steps of 8 triplets, from the public weight files
that `weights` names. `:heads` is the rendered world at 64 px with the networks of the package, both
stages in eight minutes on 2 CPU cores; `:heads_full` trains it for an hour. `:tiny` is a 64 px
model with random frozen networks, which runs every part in two minutes and learns nothing.
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
    raise ValueError(f"configs/pretrain.py has no variant '{variant}'; it has {sorted(VARIANTS)}")
  return ConfigDict(VARIANTS[variant]())
