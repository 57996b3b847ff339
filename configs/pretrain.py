"""Stage 1: pre-training of the hybrid encoder (section 3.2 of the paper).

  python -m hybrid_jax.main --config=configs/pretrain.py --workdir=runs/pretrain \\
      --config.data.videos=DIR --config.data.face_detector=face_detection_yunet.onnx

The default is the paper's 1024 px model and needs the public weight files of `weights`.
`configs/pretrain.py:heads` is the rendered world at 64 px with the networks that come with the
package, for 2 CPU cores. `configs/pretrain.py:tiny` is a 64 px model with random frozen networks,
trained in about a minute, to see every part work.
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
    raise ValueError(f"configs/pretrain.py has no variant '{variant}'; it has {sorted(VARIANTS)}")
  return ConfigDict(VARIANTS[variant]())
