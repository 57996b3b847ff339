"""Checks everything that a training run needs, before any work.

  python -m hybrid_jax.doctor --config=configs/pretrain.py --config.data.videos=DIR

Prints one line per check: ok, warning, missing (a file, with its source and terms) or wrong. The
last line counts them; the exit code is 0 if `hybrid_jax.main` with the same options would start
training. The longest check compiles the training step; --no-compile leaves it out.
"""

import functools
import sys

from absl import app, flags

from hybrid_jax import cli

_CONFIG, _WORKDIR = cli.define_config()
flags.adopt_module_key_flags(cli)  # lists them in --help
_NO_COMPILE = flags.DEFINE_bool('no-compile', False, 'Do not compile the training step.')


def main(argv: list[str]) -> None:
  """Prints the checks of --config."""
  del argv  # cli.parse_flags has refused positional arguments
  with cli.running(lower=cli.LESS_TRAINING, shared_heap=False):
    from hybrid_jax.training import preflight

    counts = dict.fromkeys(preflight.STATUSES, 0)
    workdir = _WORKDIR.value or cli.default_workdir()
    checks = preflight.examine(_CONFIG.value, workdir, compile_step=not _NO_COMPILE.value)
    for check in checks:
      print(check, flush=True)
      counts[check.status] += 1
  ready = not counts['missing'] + counts['wrong']
  summary = ', '.join(f'{count} {status}' for status, count in counts.items())
  print(f'{sum(counts.values())} checks: {summary}: training {"can" if ready else "cannot"} start')
  sys.exit(0 if ready else 1)


if __name__ == '__main__':
  flags.mark_flags_as_required(['config'])
  parser = functools.partial(cli.parse_flags, _CONFIG)
  cli.command(lambda: app.run(main, flags_parser=parser))
