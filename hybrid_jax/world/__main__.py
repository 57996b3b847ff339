"""Writes rendered portraits, driving videos, and the true answers of their re-enactment.

  python -m hybrid_jax.world out/
  python -m hybrid_jax.world out/ --people 4 --clips 3 --size 512 --seconds 4

  out/portraits/person_0.png            the sources
  out/driving/clip_0.mp4                other people talking, with sound and exact timestamps
  out/driving/clip_0.npz                its true motion, landmarks (68) and times
  out/answers/person_0_as_clip_0.mp4    the portrait's person and scene with the clip's motion

The people are of the test split: no bundled network was trained on them. For instance,
  python -m hybrid_jax.reenact --source out/portraits/person_0.png \\
      --driving out/driving/clip_0.mp4 --output person_0.mp4
"""

import argparse
import pathlib
import sys

from hybrid_jax import cli
from hybrid_jax.errors import InputError


def parse_args() -> argparse.Namespace:
  """Parses the command line."""
  parser = argparse.ArgumentParser(
    prog='python -m hybrid_jax.world',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('out', help='folder to write to')
  parser.add_argument('--people', type=int, default=2, help='number of portraits (%(default)s)')
  parser.add_argument('--clips', type=int, default=2, help='number of driving videos (%(default)s)')
  parser.add_argument('--size', type=int, default=256, help='px, a multiple of 8 (%(default)s)')
  parser.add_argument(
    '--seconds', type=float, default=2.0, help='length of each clip (%(default)s)'
  )
  parser.add_argument('--fps', type=int, default=25, help='frames per second (%(default)s)')
  return parser.parse_args()


def check(args: argparse.Namespace) -> None:
  """Raises InputError for an option outside its range."""
  for name in ('people', 'clips', 'size', 'seconds', 'fps'):
    if getattr(args, name) <= 0:
      raise InputError(f'--{name}={getattr(args, name)}: must be above zero')
  if args.size % 8 or not 32 <= args.size <= 2048:
    raise InputError(f'--size={args.size}: must be a multiple of 8 from 32 to 2048')
  if args.fps > 120:
    raise InputError(f'--fps={args.fps}: at most 120')


def write(args: argparse.Namespace) -> None:
  """Writes the files behind a progress bar."""
  from tqdm import tqdm

  # Before the bar is drawn, so that a folder that cannot be written is one line.
  pathlib.Path(args.out).mkdir(parents=True, exist_ok=True)
  with tqdm(desc='starting', unit='frame', mininterval=1) as bar, cli.ticking(bar):
    # Imported here, so that nothing waits for JAX: neither --help, nor a misspelled option, nor the
    # first sign of work.
    from hybrid_jax.world import films

    cli.use_compilation_cache()
    bar.total = films.frames_of_world(
      people=args.people, clips=args.clips, seconds=args.seconds, fps=args.fps
    )

    def progress(description: str, frames: int) -> None:
      bar.set_description(description, refresh=not frames)  # of each film once
      bar.update(frames)

    films.write_world(
      pathlib.Path(args.out),
      people=args.people,
      clips=args.clips,
      size=args.size,
      seconds=args.seconds,
      fps=args.fps,
      progress=progress,
    )


def main() -> None:
  """Runs the command."""
  args = parse_args()
  try:
    check(args)
    write(args)
  except InputError as error:
    sys.exit(f'error: {error}')
  except OSError as error:
    sys.exit(f'error: {args.out}: cannot be written ({error.strerror or error})')
  print(f'{args.out}: {args.people} portraits, {args.clips} driving clips and their true answers')


if __name__ == '__main__':
  cli.command(main)
