"""Writes a trained model for PyTorch tools: e4e's checkpoint, or rosinality's generator alone.

  python -m hybrid_jax.export --workdir runs/finetune --output encoder.pt
  python -m hybrid_jax.export --workdir runs/finetune --part generator --output g.safetensors
  python -m hybrid_jax.export --workdir runs/finetune --cma FILE --output tuned.pt

The suffix of --output chooses the format. A .pt is read by torch.load(FILE, weights_only=True), and
by --config.weights.e4e=FILE of a later run here, deformation heads included; re-enactment takes it
as --workdir=FILE. --cma takes the file that `reenact --cma` names: the generator is written as it
was tuned to that video.
"""

import argparse
import sys

from hybrid_jax.errors import InputError


def export(workdir: str, output: str, part: str = 'all', cma: str = '') -> str:
  """Writes the newest encoder of a workdir with its generator, or its generator alone.

  Args:
    cma: a file of `adjustment`, which is added to the generator; '' is none.

  Returns:
    One line that says what was written.

  Raises:
    InputError: nothing was trained there, weights are missing, `cma` is of another generator, or
      `output` cannot be written.
  """
  from hybrid_jax.reenactment import model as inference
  from hybrid_jax.reenactment import tuning
  from hybrid_jax.weights import export as formats
  from hybrid_jax.weights import exported

  formats.check_path(output)  # before a long read
  model = inference.load_model(workdir)
  if cma:
    model = tuning.with_delta(model, cma)
  if part == 'generator':
    content = formats.rosinality(model.G, model.networks.hybrid.generator.channels)
    told = f'rosinality generator of {model.resolution} px'
  else:
    rows, total = int(model.rows), model.networks.hybrid.encoder.num_ws
    config = exported.portable(model.config.to_dict())
    content = formats.e4e(model.networks, model.E, model.G, rows, config)
    told = f'e4e encoder and decoder of {model.resolution} px'
    if rows < total:
      told += f'; W+ rows {rows} to {total - 1} are not trained yet, their heads are zero'
  formats.write(output, content)
  return f'{output}: {model.name}: {told}'


def main(argv: list[str] | None = None) -> None:
  from absl import logging

  logging.set_verbosity(logging.ERROR)  # Orbax warns of what reading only means
  parser = argparse.ArgumentParser(
    prog='python -m hybrid_jax.export',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('--workdir', default='', help='of a training run (the shipped model)')
  parser.add_argument('--output', required=True, metavar='FILE', help='.pt or .safetensors')
  parser.add_argument('--part', default='all', choices=('all', 'generator'))
  parser.add_argument('--cma', default='', metavar='FILE', help='an adjustment of `reenact --cma`')
  options = parser.parse_args(argv)
  try:
    print(export(options.workdir, options.output, options.part, options.cma))
  except InputError as error:
    sys.exit(f'error: {error}')


if __name__ == '__main__':
  main()
