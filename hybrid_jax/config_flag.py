"""--config of the commands that take one; mistakes in it are told in one line."""

import sys

from absl import app, flags
from ml_collections import config_flags

CONFIG = config_flags.DEFINE_config_file('config', None, 'Config file.', lock_config=True)


def parse(argv: list[str]) -> list[str]:
  """absl's parser, with a mistake in the config told in one line."""
  app.define_help_flags()
  try:
    rest = flags.FLAGS(argv)
    CONFIG.value.lock()  # a config file that cannot be loaded fails at its first use
    return rest
  except (flags.Error, AttributeError, KeyError, ImportError, OSError) as error:
    # The last line: config_flags puts a traceback of the config file before it.
    lines = [line.strip() for line in str(error).replace('\\n', '\n').splitlines()]
    told = next(line for line in reversed(lines) if line)
    if isinstance(error, AttributeError | KeyError):
      told = 'no such config field; ' + told.strip("'")
    sys.exit(f'error: {told}')
