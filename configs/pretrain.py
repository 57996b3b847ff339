"""Stage 1: pre-training of the hybrid encoder (section 3.2 of the paper).

  python -m hybrid_jax.main --config=configs/pretrain.py \\
      --config.data.videos=DIR --config.data.face_detector=face_detection_yunet.onnx

The default is the paper's 1024 px model: 200,000 steps of 8 triplets, from the public weight files
that `weights` names. `:heads` is the rendered world at 64 px with the networks of the package, both
stages in eight minutes on 2 CPU cores; `:heads_full` trains it for an hour. `:tiny` is a 64 px
model with random frozen networks, which runs every part in two minutes and learns nothing.

`:v5e1`, `:v5e8`, `:v6e1` and `:h100` fit the default into the memory of one TPU v5e (Colab), eight
of them, one v6e or one H100; behind another variant they do so with it: `:heads_256+v5e1`.
"""

from ml_collections import ConfigDict

from configs import variants


def get_config(variant: str = '') -> ConfigDict:
  """Returns the config of a variant of configs/variants.py; '' is the paper's."""
  return ConfigDict(variants.chosen(variant))
