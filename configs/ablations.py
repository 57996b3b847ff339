"""The paper's ablations of training (section 4.3), on the rendered world at 64 px.

  python -m hybrid_jax.main --config=configs/ablations.py:without_8_10

experiments/paper/ablations.py trains all variants with three seeds each. All start from the shipped
inversion encoder and take the same number of steps: a budget of 12 to 24 minutes of one CPU core,
with half the batch of configs/pretrain.py:heads, and not convergence. A first run took the 300 + 80
steps of that config (experiments/results/ablations_short.json): the motion has hardly been learnt
by then, so that variants differ in how early they begin to learn it. STEPS were raised after that
run, and are judged on other people. The ablations of inference (without CMA, with PTI) need no
training of their own.
"""

from ml_collections import ConfigDict

from configs import common

STEPS = 1_000, 200  # of stage 1 and 2
BATCH = 4
VARIANTS = {
  'full': {},
  # The text names Eqs. (8) and (10); since (8) and (9) are one block, it may mean all three.
  'without_8_10': {'loss': {'weights': {'anchor_identity': 0.0, 'latent_consistency': 0.0}}},
  'without_8_9_10': {
    'loss': {'weights': {'anchor_identity': 0.0, 'puppet_identity': 0.0, 'latent_consistency': 0.0}}
  },
  # Both latents in W+: as many deformation heads, which add to the first rows of W+.
  'without_hybrid': {'model': {'hybrid': False}},
}


def get_config(variant: str = 'full') -> ConfigDict:
  """Returns the config of a variant, a key of VARIANTS."""
  if variant not in VARIANTS:
    raise ValueError(f"configs/ablations.py has no variant '{variant}'; it has {sorted(VARIANTS)}")
  config = common.merged(common.heads(), VARIANTS[variant])
  config['data'] |= {'batch_size': BATCH}
  first, second = STEPS
  config['train'] |= {'num_steps': first, 'val_steps': first // 5, 'sample_steps': first}
  config['then']['train'] |= {'num_steps': second, 'val_steps': second // 5}
  config['then']['train'] |= {'sample_steps': second}
  return ConfigDict(config | {'showcase': False})
