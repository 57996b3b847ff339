"""The part `forms` of `accelerator`: the same generator, computed in other ways on one device.

Needs what `accelerator_parts` needs; imports are inside for the same reason.
"""

from typing import Any

from experiments.cost.accelerator_parts import (
  emit,
  emit_memory,
  paper_config,
  seconds,
  set_precision,
)

# Changes of the generator that networks.build makes: up-convolutions all in one lowering, toRGB in
# each, and the large layers in blocks.
FORMS = {
  'as built': {},
  'transposed': {'polyphase_from': 2048},
  'polyphase': {'polyphase_from': 0},
  'toRGB as sums': {'rgb_sums': True, 'blocks_from': None},
  'toRGB as a product': {'rgb_sums': False, 'blocks_from': None},
  'in blocks': {'blocks_from': 128},
}


def forms(config: Any = None, batch: int = 0) -> None:
  """W+ to an image, by every form, with the largest difference from the first; 1024 px."""
  import dataclasses

  import jax
  import jax.numpy as jnp

  from hybrid_jax.method import networks

  cpu = jax.default_backend() == 'cpu'
  precision, n = ('float32', batch or 1) if cpu else ('bf16', batch or 8)
  set_precision(precision)
  used = config or paper_config(precision)
  nets = networks.build(used.model)
  G = jax.jit(lambda key: networks.random_frozen(nets, key))(jax.random.key(0))['generator']
  rows, width = nets.hybrid.encoder.num_ws, used.model.w_dim
  W, first = jax.random.normal(jax.random.key(1), (n, rows, width)), None
  for name, changes in FORMS.items():
    hybrid = dataclasses.replace(nets.hybrid, generator=nets.hybrid.generator.clone(**changes))
    draw = jax.jit(lambda G, W, hybrid=hybrid: hybrid.reenact(G, W, None))
    value = seconds(lambda: draw(G, W), repeats=2 if cpu else 20)  # noqa: B023
    image = draw(G, W)
    first = image if first is None else first
    difference = float(jnp.abs(image - first).max() / jnp.abs(first).max())
    emit(f'generator, {name}', value / n * 1e3, 'ms per image', difference=difference)
  emit_memory('forms')
