"""Writes a trained model for PyTorch tools: e4e's checkpoint, or rosinality's generator alone.

  python -m hybrid_jax.export --workdir runs/finetune --output encoder.pt
  python -m hybrid_jax.export --workdir runs/finetune --part generator --output g.safetensors

The suffix of --output chooses the format. Without --workdir it is the model that comes with the
package. Read a .pt with torch.load(FILE, weights_only=True).
"""

import argparse
import sys

from absl import logging

from hybrid_jax import inference
from hybrid_jax.errors import InputError
from hybrid_jax.weights import export


def main() -> None:
  parser = argparse.ArgumentParser(
    prog='python -m hybrid_jax.export',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('--workdir', default='', help='of a training run (the shipped model)')
  parser.add_argument('--output', required=True, help='.pt or .safetensors')
  parser.add_argument('--part', default='all', choices=('all', 'generator'))
  args = parser.parse_args()
  logging.set_verbosity(logging.ERROR)  # Orbax warns of what reading only means
  try:
    model = inference.load_model(args.workdir)
    if args.part == 'generator':
      checkpoint = export.rosinality(model.G, tuple(model.networks.hybrid.generator.channels))
    else:
      checkpoint = export.e4e(model.networks, model.E, model.G)
    export.write(args.output, checkpoint)
  except InputError as error:
    sys.exit(f'error: {error}')
  tensors = sum(len(v) if isinstance(v, dict) else 1 for k, v in checkpoint.items() if k != 'opts')
  print(f'{args.output}: {model.name}, {tensors} tensors')


if __name__ == '__main__':
  main()
