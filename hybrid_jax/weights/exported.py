"""Reads the config inside an exported model, so that one file is enough for re-enactment.

`export` writes the config of the training into the options of the e4e checkpoint, as JSON;
`python -m hybrid_jax.convert` keeps it in the manifest.
"""

import json
import os
from collections.abc import Mapping
from typing import Any

from hybrid_jax.errors import InputError
from hybrid_jax.weights import files, folders, shipped

SECTIONS = ('model', 'weights', 'data', 'train', 'progressive')


def config_text(content: Any) -> str:
  """The config in the content of a checkpoint; '' if it has none."""
  # Any file may be asked: its entries can have any type.
  opts = content.get('opts') if isinstance(content, Mapping) else None
  text = opts.get('config') if isinstance(opts, Mapping) else None
  return text if type(text) is str else ''


def portable(config: Mapping) -> dict:
  """A config without the folders of the machine that it was made on: file names alone."""
  name = lambda x: os.path.basename(x) if isinstance(x, str) and os.path.isabs(x) else x  # noqa: E731
  return {k: portable(x) if isinstance(x, Mapping) else name(x) for k, x in config.items()}


def read_config(path: str) -> dict:
  """The config of the training of an exported model; encoder and generator are read from `path`.

  Raises:
    InputError: the file is missing or damaged, or was not written by `export`.
  """
  if folders.is_converted(path):
    text = folders.read_manifest(path)['parts'].get('encoder', {}).get('config', '')
  else:
    text = config_text(files.read(path))
  try:
    config = json.loads(text)
    # The model, crop and weights are built from these sections: all their fields must be there.
    known = shipped.config()
    known['data'].pop('framing', None)  # not in earlier versions' files: see `Model.crop`
    if not all(known[section].keys() <= config[section].keys() for section in SECTIONS):
      raise ValueError
  except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
    raise InputError(
      f'{path}: not a model that `python -m hybrid_jax.export` wrote: it does not say how it was '
      'trained; give a workdir, or export it again'
    ) from None
  # The file holds the generator that the encoder was trained for; its own path, from another
  # machine, is of no use.
  if config['weights']['e4e'] not in ('shipped', 'random'):
    config['weights']['e4e'] = path
  return config
