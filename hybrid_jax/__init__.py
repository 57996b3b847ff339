"""One-shot face video re-enactment with StyleGAN2's hybrid latent spaces (arXiv 2302.07848).

import hybrid_jax
model = hybrid_jax.load()
source = hybrid_jax.crop('me.jpg', detector='yunet.onnx')
video = model.reenact(source, 'drive.mp4', edit='glasses=1')
video.show()
video.save('out.mp4')
"""

import importlib
from typing import Any

__version__ = '0.1.0'

# The public names and their modules, imported on first use: commands and data worker processes
# import this package and need neither JAX nor PyAV.
_PUBLIC = {
  'load': 'hybrid_jax.reenactment.api',
  'crop': 'hybrid_jax.reenactment.api',
  'Video': 'hybrid_jax.reenactment.api',
  'Model': 'hybrid_jax.reenactment.model',
  'InputError': 'hybrid_jax.errors',
}
__all__ = [*_PUBLIC, '__version__']


def __getattr__(name: str) -> Any:
  if name in _PUBLIC:
    return getattr(importlib.import_module(_PUBLIC[name]), name)
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> list[str]:
  return sorted({*globals(), *_PUBLIC})
