"""Counts the memory of the training state on each device, by the number of devices.

  python -m experiments.cost.sharding --output=experiments/results/sharding.json

The state is that of configs/pretrain.py at 1024 px: parameters of encoder and critic, the moments
and the slow copy of Ranger, the moments of Adam. The bytes are those of its shapes, split by the
rule that training uses (`training.parallel.partition`): no array is made and nothing is compiled.
A step adds temporaries, among them the gathered parameters of the encoder (`gathered_gib`).
"""

import math
import pathlib

import jax

from configs import pretrain
from experiments import script
from hybrid_jax.method import networks
from hybrid_jax.training import parallel, steps

GiB = 2**30


def bytes_per_device(tree: object, devices: int) -> tuple[int, int]:
  """Returns the bytes that a device holds of the shapes of a tree, and those of them not split."""
  held = whole = 0
  for x in jax.tree.leaves(tree):
    size = math.prod(x.shape) * x.dtype.itemsize
    if parallel.partition(x.shape, devices):
      held += size // devices
    else:
      held, whole = held + size, whole + size
  return held, whole


def main() -> None:
  parser = script.parser(__doc__)
  parser.add_argument('--output', required=True, type=pathlib.Path, help='.json file to write')
  args = parser.parse_args()
  record, config = script.record(), pretrain.get_config()
  nets = networks.build(config.model)
  state = jax.eval_shape(lambda key: steps.init_state(nets, config, key), jax.random.key(0))
  by_devices = {}
  for devices in (1, 2, 4, 8, 16, 64, 256):
    held, whole = bytes_per_device(state, devices)
    by_devices[devices] = {'state_gib': held / GiB, 'of_it_not_split_gib': whole / GiB}
  gathered, _ = bytes_per_device((state.encoder, state.critic), 1)
  result = {'px': config.model.resolution, 'gathered_gib': gathered / GiB, 'devices': by_devices}
  script.write_json(args.output, result | {'measured': record})


if __name__ == '__main__':
  main()
