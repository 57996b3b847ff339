"""Converts a public weight file to a folder that `config.weights` takes.

  python -m hybrid_jax.convert FILE --output DIR
  python -m hybrid_jax.convert e4e e4e_ffhq_encode.pt --output weights/e4e --verify

Reads PyTorch's formats (also TorchScript and NVlabs' pickles), safetensors and .npy, without
PyTorch and without running anything that a file contains. The kind is recognised by the contents
unless it is named. A tensor without a place is an error that names it, and nothing is written. DIR
gets manifest.json and an Orbax tree; with --verify also samples.png if there is a generator.
"""

import argparse

from hybrid_jax import cli


def main(argv: list[str] | None = None) -> None:
  """Runs the command; `argv` replaces the arguments of the process."""
  with cli.running('stopped: nothing was written'):
    # Imported here: they load JAX and all networks, and Ctrl-C meanwhile ends with one line.
    from hybrid_jax.weights import convert, public_formats

    parser = argparse.ArgumentParser(
      prog='python -m hybrid_jax.convert',
      description=__doc__,
      formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
      'kind', nargs='?', default='auto', choices=['auto', *public_formats.KINDS],
      help='recognised by the contents if not given',
    )  # fmt: skip
    parser.add_argument('file', metavar='FILE', help='as its authors published it')
    parser.add_argument('--output', required=True, metavar='DIR', help='must not exist yet')
    parser.add_argument('--verify', action='store_true', help='check invariants; draw samples.png')
    options = parser.parse_args(argv)
    manifest = convert.convert(options.file, options.output, options.kind, options.verify)
    print(convert.summary(manifest, options.output))
    convert.require_checks(manifest, options.file)


if __name__ == '__main__':
  cli.command(main)
