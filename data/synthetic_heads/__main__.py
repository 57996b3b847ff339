"""Renders people of the rendered world and packs them: array_record, splits disjoint in people.

  python -m data.synthetic_heads packed/                       # heads_64: 440 people
  python -m data.synthetic_heads packed/ --config heads_256

Train with --config.data.packed=FOLDER, the folder printed at the end.
"""

import argparse
import json
import os
import pathlib
import sys


def build(out: str, config: str) -> pathlib.Path:
  """Renders the set unless it exists; returns the folder of the records and of their index."""
  # Imports TensorFlow Datasets, an optional dependency.
  from data.synthetic_heads import SyntheticHeads
  from hybrid_jax.media import replacing
  from hybrid_jax.training.triplets import INDEX

  builder = SyntheticHeads(config=config, data_dir=out)
  builder.download_and_prepare()
  path = pathlib.Path(builder.data_path)
  if not (path / INDEX).is_file():
    # Written last: its presence means a complete set.
    with replacing(path / INDEX) as part:
      part.write_text(json.dumps({'splits': builder.index()}, indent=1) + '\n')
  return path


def main() -> None:
  """Parses the command line and renders."""
  parser = argparse.ArgumentParser(
    prog='python -m data.synthetic_heads',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('out', help='folder to write to')
  parser.add_argument(
    '--config', default='heads_64', choices=['heads_64', 'heads_128', 'heads_256', 'tiny']
  )
  args = parser.parse_args()
  # Before TensorFlow is imported, which reads it once.
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
  try:
    print(f'packed: {build(args.out, args.config)}')
  except ImportError:
    sys.exit("error: packing needs the extra [data]: pip install -e '.[data]'")


if __name__ == '__main__':
  main()
