"""Readings that the paper leaves open, on the rendered world at 64 px: stage 1 alone.

  python -m hybrid_jax.main --config=configs/readings.py:eq_10_mse
  python -m hybrid_jax.main --config=configs/readings.py:eq_10_mse+flip

experiments/paper/readings.py trains every variant with three seeds and measures it. Each variant
changes one choice of today's default, to that of ViVFace (Chang et al. 2025), the nearest public
relative; a sum of names makes several changes. All start from the shipped inversion encoder and
take STEPS of BATCH triplets. The budget was fixed before the first run: 27 trainings of four to six
minutes of one CPU core. It compares the beginning of a training, and not convergence.
"""

from ml_collections import ConfigDict

from configs import common

STEPS, BATCH = 300, 4
DEFAULT = 'default'
# The default of the time of the comparison.
BASE = {'loss': {'readings': {'batch_statistics': 'running', 'style_proximity': 'norm'}}}
VARIANTS = {
  DEFAULT: {},
  # Eq. (10): mean squared error, weight 1.
  'eq_10_mse': {
    'loss': {'readings': {'latent_consistency': 'mse'}, 'weights': {'latent_consistency': 1.0}}
  },
  # Eq. (12): mean squared error of the driver's deformation; the ratio to Eq. (11) stays 1.
  'eq_12_mse': {'loss': {'readings': {'style_proximity': 'mse'}}},
  # Eq. (7): gradient variance of images in [-1, 1] is 16 times that of [0, 1].
  'gradient_variance': {'loss': {'reconstruction': {'gradient_variance': 0.16}}},
  # Eq. (10): G(W_S, F_D') is normalised by its own batch; or every role of a triplet is.
  'batch': {'loss': {'readings': {'batch_statistics': 'batch'}}},
  'role': {'loss': {'readings': {'batch_statistics': 'role'}}},
  # A term that the paper lacks: the deformation of G(W_S, F_D') is F_D'.
  'deformation_consistency': {'loss': {'weights': {'deformation_consistency': 1.0}}},
  # Half of the triplets are mirrored.
  'flip': {'data': {'flip': True}},
}


def get_config(variant: str = DEFAULT) -> ConfigDict:
  """Returns the config of a variant, a key of VARIANTS or several joined by '+'."""
  config = common.merged(common.heads(), BASE)
  for name in variant.split('+'):
    if name not in VARIANTS:
      raise ValueError(f"configs/readings.py has no variant '{name}'; it has {sorted(VARIANTS)}")
    config = common.merged(config, VARIANTS[name])
  config['data'] |= {'batch_size': BATCH}
  config['train'] |= {'num_steps': STEPS, 'val_steps': STEPS, 'sample_steps': STEPS}
  config['train'] |= {'checkpoint_steps': 100}
  return ConfigDict(config | {'then': {}, 'showcase': False})
