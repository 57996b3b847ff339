"""Checks everything that a training run needs, before any work.

  python -m hybrid_jax.doctor --config=configs/pretrain.py --config.data.videos=DIR
  python -m hybrid_jax.doctor --config=configs/pretrain.py --topology=v5e:2x4
  python -m hybrid_jax.doctor --config=configs/pretrain.py --topology=h100 --program=reenact

Prints one line per check: ok, warning, missing (a file, with its source and terms) or wrong. The
last line counts them; the exit code is 0 if `hybrid_jax.main` with the same options would start
training. The longest check compiles the training step; --no-compile leaves it out.

With --topology nothing is checked but whether a program fits a device, which need not be here: it
is compiled for it, and the compiler's estimates are printed: memory by kind, cycles of a TPU or
bytes that a GPU moves, and the layers that cost most. The exit code is 0 if it fits.
"""

import functools
import json
import pathlib
import sys

from absl import app, flags

from hybrid_jax import cli

_CONFIG, _WORKDIR = cli.define_config()
flags.adopt_module_key_flags(cli)  # lists them in --help
_NO_COMPILE = flags.DEFINE_bool('no-compile', False, 'Do not compile the training step.')
_TOPOLOGY = flags.DEFINE_string(
  'topology', '', 'Compile for v5e:1x1, v5e:2x4, v6e:1x1, v5p:2x2x1, v4:2x2x1, ..., or h100.'
)
_PROGRAM = flags.DEFINE_enum(
  'program', 'train', ['train', 'reenact', 'cma', 'generator'], 'What to compile for --topology.'
)
_BATCH = flags.DEFINE_integer(
  'batch', 0, 'Triplets of train; pictures a device of reenact and generator (8); drivers of cma.'
)
_OUTPUT = flags.DEFINE_string(
  'output', '', 'Also write the report of --topology to this JSON file.'
)


def main(argv: list[str]) -> None:
  """Prints the checks of --config."""
  del argv  # cli.parse_flags has refused positional arguments
  with cli.running(lower=cli.LESS_TRAINING, shared_heap=False):
    if _TOPOLOGY.value:
      sys.exit(0 if compile_ahead() else 1)
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


def compile_ahead() -> bool:
  """Compiles --program for --topology and prints the report; returns whether it fits."""
  from hybrid_jax import environment
  from hybrid_jax.ahead import devices, report
  from hybrid_jax.training import config_check

  config_check.check(_CONFIG.value)
  output = pathlib.Path(_OUTPUT.value) if _OUTPUT.value else None
  if output and not output.parent.is_dir():
    sys.exit(f'error: --output={output}: no such folder; make it first')
  target = devices.target(_TOPOLOGY.value)
  say = functools.partial(print, flush=True)
  found, _ = report.compiled(_CONFIG.value, target, _PROGRAM.value, _BATCH.value, say)
  for line in found.lines():
    print(line)
  if output:
    output.write_text(json.dumps(found.asdict() | environment.record(), indent=1) + '\n')
  return found.fits


if __name__ == '__main__':
  flags.mark_flags_as_required(['config'])
  parser = functools.partial(cli.parse_flags, _CONFIG)
  cli.command(lambda: app.run(main, flags_parser=parser))
