"""Makes all 256 px networks of the rendered world: the whole recipe as one resumable command.

  python -m experiments.world.recipe_256 WORKDIR --squeeze=DIR

Runs, in order, the growth of the generator, its inversion encoder, stages 1 and 2 of the hybrid
encoder, and the export of each into the package. Every part continues from its own checkpoint, so
that the same command continues after any interruption; SIGTERM is passed on to the running part.
"""

import pathlib
import signal
import subprocess
import sys

from experiments import script
from hybrid_jax.weights import shipped


def parts(workdir: pathlib.Path, squeeze: str) -> list[tuple[pathlib.Path, list[str]]]:
  """(file whose presence shows that a part is done, arguments of `python -m`)."""
  frames = ['--frames', str(workdir / 'frames')]
  judge = ['--squeeze', squeeze] if squeeze else []
  grown, inverted, trained = (str(workdir / n) for n in ('grow', 'inversion', 'encoder'))
  generator, inversion, encoder = (
    shipped.FOLDER / f'{n}_256.npz' for n in ('generator', 'inversion', 'encoder')
  )
  config = '--config=configs/pretrain.py:heads_256'
  return [
    (generator, ['experiments.world.grow', grown, *frames, *judge]),
    (generator, ['experiments.world.grow', grown, '--export', str(generator)]),
    (inversion, ['experiments.world.large_inversion', inverted, *frames]),
    (inversion, ['experiments.world.large_inversion', inverted, '--export', str(inversion)]),
    (encoder, ['hybrid_jax.main', config, f'--workdir={trained}']),
    (encoder, ['experiments.world.encoder', trained]),
  ]


def run(arguments: list[str]) -> None:
  """Runs one part to its end; passes SIGTERM on, and then ends with the part."""
  stopping: list[bool] = []
  with subprocess.Popen([sys.executable, '-m', *arguments]) as part:
    signal.signal(signal.SIGTERM, lambda *_: (stopping.append(True), part.terminate()))
    code = part.wait()
  if stopping or code:
    sys.exit(code)


def main() -> None:
  parser = script.parser(__doc__)
  parser.add_argument('workdir', type=pathlib.Path)
  parser.add_argument('--squeeze', default='', help='folder with squeezenet1_1.npz, for figures')
  args = parser.parse_args()
  todo = parts(args.workdir.absolute(), args.squeeze)
  # Looked at once: an export makes the file that its training is done by.
  for _, arguments in [part for part in todo if not part[0].exists()]:
    run(arguments)


if __name__ == '__main__':
  main()
