"""Checks whether a re-enacted file is unchanged since it was written, and shows its record.

  python -m hybrid_jax.verify out.mp4
  python -m hybrid_jax.verify renamed.mkv --sidecar out.mp4.json --trust roots.pem

Checks the sidecar (OUTPUT.json) and content credentials (C2PA), if the file holds any. Exit codes:

  0  verified: every byte is unchanged
  1  cannot be checked: no such file, or the sidecar cannot be used
  3  altered: pictures, sound or signed data differ from what was written
  4  remuxed: same pictures and sound in another container; credentials do not survive this
  5  no sidecar: only content credentials, if the file holds any, were checked
"""

import argparse
import sys

from hybrid_jax import cli
from hybrid_jax.errors import InputError
from hybrid_jax.provenance import verification

EXIT_CODES = {'verified': 0, 'altered': 3, 'remuxed': 4, 'no sidecar': 5}


def main() -> None:
  """Runs the command."""
  parser = argparse.ArgumentParser(
    prog='python -m hybrid_jax.verify',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('file', help='a result: a file, or a folder of PNG files')
  parser.add_argument('--sidecar', default='', help='its sidecar (default: FILE.json)')
  parser.add_argument(
    '--trust', default='', help='PEM file of certificates to trust (default: trust none)'
  )
  args = parser.parse_args()
  try:
    found = verification.verify(args.file, args.sidecar, args.trust)
  except InputError as error:
    sys.exit(f'error: {error}')
  print('\n'.join(found.lines()))
  sys.exit(EXIT_CODES[found.verdict])


if __name__ == '__main__':
  cli.command(main)
