"""What compilers for a TPU and an H100 say of the 1024 px programs; neither device is needed.

  python -m experiments.cost.accelerators --output experiments/results/accelerators.json \\
      --programs=generator,reenact --topologies=v5e:1x1
  python -m experiments.cost.accelerators --output ... --programs=generator --form=plain
  python -m experiments.cost.accelerators --output ... --programs=train --config=pretrain:v5e1

Compiles configs/pretrain.py, or the config given, as `hybrid_jax.doctor --topology` does and adds
each report to the file as soon as it is there: memory, estimated cycles or bytes moved, the
costliest layers. `--form=plain` compiles the form for CPUs, to see what that for the device gains.
Needs libtpu, or JAX's CUDA plug-in; one process at a time can use libtpu, for which the training
step takes 9 to 36 minutes to compile. Estimates of a compiler are good for memory and for ratios,
and are no measurements.
"""

import contextlib
import json
import pathlib
import sys
from unittest import mock

from configs import finetune, pretrain
from experiments import script
from hybrid_jax import environment
from hybrid_jax.ahead import devices, programs, report
from hybrid_jax.errors import InputError

CONFIGS = {'pretrain': pretrain.get_config, 'finetune': finetune.get_config}


def main() -> None:
  parser = script.parser(__doc__)
  add = parser.add_argument
  add('--output', type=pathlib.Path, required=True, help='.json file to add to')
  add(
    '--programs', default='generator,reenact', help='of train,reenact,cma,generator (%(default)s)'
  )
  add('--topologies', default='v5e:1x1', help='(%(default)s)')
  add('--batch', type=int, default=0, help="0: the program's own (%(default)s)")
  add('--config', default='pretrain', help='pretrain:VARIANT or finetune:VARIANT (%(default)s)')
  add('--form', default='', choices=('', 'plain'), help='of the large layers')
  args = parser.parse_args()
  try:
    targets = [devices.target(topology) for topology in args.topologies.split(',')]
  except InputError as error:
    sys.exit(f'error: {error}')
  # After `target`, which chooses the CPU for all else, and before a file is written.
  measured = environment.record()
  stage, _, variant = args.config.partition(':')
  config = CONFIGS[stage](variant)
  for target in targets:
    for name in args.programs.split(','):
      try:
        with contextlib.ExitStack() as stack:
          if args.form:
            stack.enter_context(mock.patch.object(programs, 'platform', lambda mesh: 'cpu'))
          found, _ = report.compiled(config, target, name, args.batch, print)
      except InputError as error:
        sys.exit(f'error: {error}')
      print(*found.lines(), sep='\n')
      key = f'{target.name}, {name}' + (f', batch {args.batch}' if args.batch else '')
      key += f', {args.config}' if args.config != 'pretrain' else ''
      key += f', {args.form} form' if args.form else ''
      known = json.loads(args.output.read_text()) if args.output.is_file() else {}
      known[key] = found.asdict() | {'measured': measured}
      script.write_json(args.output, known)


if __name__ == '__main__':
  main()
