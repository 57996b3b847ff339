"""Opens a page in the browser: portrait and clip in, re-enactment out.

  python -m hybrid_jax.app                      # with the bundled model; open the printed address
  python -m hybrid_jax.app --workdir runs/finetune --face-detector face_detection_yunet.onnx

Needs Gradio: pip install -e '.[app]'. The bundled model takes square crops of rendered heads, and
the page draws examples on the first visit. A model for photographs also needs --face-detector.

The page is served to this machine only (127.0.0.1). From another one, forward the port,
  ssh -L 7860:127.0.0.1:7860 HOST
or serve the local network by --host 0.0.0.0: everyone in it can then use the page. --share asks
Gradio's servers for a public address for a week, at which everyone who has it can use the page;
uploads and results travel through those servers, although no file is kept there.

In Colab or Jupyter, either run the command with --share, or open the page in a cell without it:
  from hybrid_jax import app
  app.show()

Uploads and results lie in a temporary folder: results are removed when the page is closed, uploads
two hours after they were made, and everything when the command ends (Ctrl-C, or a signal). Renders
wait for each other in a queue.
"""

import argparse
import contextlib
import os
import signal
import threading

from hybrid_jax import cli
from hybrid_jax.errors import InputError

# What Colab's browser tab cannot reach by itself.
IN_COLAB = (
  'This machine is in Colab, and your browser cannot open that address: add --share, or run in a '
  'cell  from hybrid_jax import app; app.show()'
)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
  """The arguments of a command line; exits with a usage message if they are wrong."""
  parser = argparse.ArgumentParser(
    prog='python -m hybrid_jax.app',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add = parser.add_argument
  add('--workdir', default='', help='training run or exported model (default: the bundled model)')
  add('--face-detector', default='', help='YuNet (.onnx) or MediaPipe FaceLandmarker (.task) file')
  add('--directions', default='', help="folder of edit directions (the bundled model's)")
  add('--host', default='127.0.0.1', help='address to serve (%(default)s: this machine only)')
  add('--port', type=int, help='port to serve (the first free one from 7860 on)')
  add('--share', action='store_true', help='ask Gradio for a public address, see above')
  add('--max-seconds', type=float, default=60, help='longest clip that is taken, s (%(default)g)')
  add('--max-mb', type=int, default=200, help='largest file that is taken, MB (%(default)s)')
  return parser.parse_args(argv)


@contextlib.contextmanager
def opened(args: argparse.Namespace):
  """Serves the page inside of the block; gives its addresses. Raises InputError."""
  # Imported here, so that --help does not wait for JAX.
  from hybrid_jax.media.landmarkers import open_landmarker
  from hybrid_jax.page.limits import Limits
  from hybrid_jax.page.server import open_page
  from hybrid_jax.page.work import Work
  from hybrid_jax.reenactment.model import load_model

  if args.max_seconds <= 0 or args.max_mb <= 0:
    raise InputError('--max-seconds and --max-mb must be above 0')
  if args.face_detector:
    open_landmarker(args.face_detector)  # refused now, and not at the first upload
  work = Work(
    load_model(args.workdir),
    args.face_detector,
    args.directions,
    Limits(args.max_mb, args.max_seconds),
  )
  with open_page(work, host=args.host, port=args.port, share=args.share) as addresses:
    yield addresses


def show(*arguments: str) -> None:
  """Shows the page below a notebook cell until the cell is interrupted; takes the options above."""
  cli.use_compilation_cache()
  # A notebook's own errors: the command's would end the kernel's cell with SystemExit.
  with contextlib.suppress(KeyboardInterrupt), opened(parse_args(list(arguments))):
    threading.Event().wait()


def end_by_signals() -> None:
  """Makes the signals of a service manager and of a closed terminal end the command as Ctrl-C."""
  for number in (signal.SIGTERM, signal.SIGHUP):
    if signal.getsignal(number) is signal.SIG_DFL:  # and not one that nohup ignores
      signal.signal(number, signal.default_int_handler)


def main() -> None:
  """Runs the command."""
  args = parse_args()
  end_by_signals()
  with cli.running('the page is closed'), opened(args) as addresses:
    for address in addresses:
      cli.report(f'open {address}')
    if 'COLAB_RELEASE_TAG' in os.environ and not args.share:
      cli.report(IN_COLAB)
    threading.Event().wait()


if __name__ == '__main__':
  cli.command(main)
