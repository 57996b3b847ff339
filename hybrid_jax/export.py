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

from hybrid_jax import cli


def export(workdir: str, output: str, part: str = 'all', cma: str = '') -> str:
  """Writes the newest encoder of a workdir with its generator, or its generator alone.

  Args:
    workdir: of a training run, or an exported model; '' is the bundled model.
    output: path of the file, .pt or .safetensors.
    part: 'all' or 'generator'.
    cma: file of an adjustment to add to the generator; '' adds nothing.

  Returns:
    One line that describes the file.

  Raises:
    InputError: nothing was trained there, weights are missing, `cma` is of another generator, or
      `output` cannot be written.
  """
  # Imported here: they load JAX, which takes seconds that --help and a bad path need not wait for.
  from hybrid_jax.reenactment import model as inference
  from hybrid_jax.reenactment import tuning
  from hybrid_jax.weights import export as formats

  formats.check_path(output)  # before a long read
  model = inference.load_model(workdir)
  # An adjustment changes the generator only; the encoder that is written with it stays the same.
  if cma:
    model = tuning.with_delta(model, cma)
  if part == 'generator':
    content, what = formats.rosinality_file(model.networks, model.G)
  else:
    content, what = formats.e4e_file(
      model.networks, model.E, model.G, int(model.rows), model.config.to_dict()
    )
  formats.write(output, content)
  return f'{output}: {model.name}: {what}'


def main(argv: list[str] | None = None) -> None:
  """Runs the command; `argv` replaces the arguments of the process."""
  parser = argparse.ArgumentParser(
    prog='python -m hybrid_jax.export',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument(
    '--workdir', default='', help='of a training run (bundled model if not given)'
  )
  parser.add_argument('--output', required=True, metavar='FILE', help='.pt or .safetensors')
  parser.add_argument('--part', default='all', choices=('all', 'generator'))
  parser.add_argument('--cma', default='', metavar='FILE', help='an adjustment of `reenact --cma`')
  options = parser.parse_args(argv)
  with cli.running('stopped: nothing was written'):
    print(export(options.workdir, options.output, options.part, options.cma))


if __name__ == '__main__':
  cli.command(main)
