"""Re-enacts a portrait live: with a camera, a stream, a pipe or a file, frame by frame.

  # a camera in a window: keys q (end) and c (motion starts from the present expression)
  python -m hybrid_jax.live --source me.png --driving /dev/video0 --face-detector yunet.onnx \\
      --motion relative --input-options video_size=640x480,framerate=30

  # a clip, every frame of it, into a file; and as if it were a camera
  python -m hybrid_jax.live --source portrait.png --driving clip.mp4 --output out.mp4
  python -m hybrid_jax.live --source portrait.png --driving clip.mp4 --realtime

  # from the network to the network
  python -m hybrid_jax.live --source me.png --driving rtsp://camera.local/stream \\
      --face-detector yunet.onnx --output rtmp://server/live/name
  python -m hybrid_jax.live ... --driving udp://0.0.0.0:5000 --output udp://127.0.0.1:5001

  # in a pipe (MPEG-TS); messages go to the other channel
  ffmpeg ... -f mpegts - |
    python -m hybrid_jax.live --source me.png --driving - --output - | ffplay -

When it falls behind, the newest frame wins, and dropped frames are counted. A file is different:
every frame is taken, as --no-realtime asks of the others, unless --realtime paces it by its clock.
Without --face-detector the driver must be a square crop of the head.

A face that is lost is held (--hold) and then fades to a neutral expression (--fade). A camera or a
stream that breaks off is opened again; after --wait seconds without a frame the run ends. Ctrl-C
ends it too: the file is finished. Relative motion starts from the most neutral frame of the first
second (--calibration), or from the present one after the key c (in a terminal: c and Enter).

The head is smoothed by the One Euro filter (--min-cutoff, --beta, --speed-cutoff), which looks
back only. Latency is from the decoded frame to the picture shown, or handed to the encoder of a
file: median, 95 % and worst, every five seconds and at the end, and in --log. The exit code is 1
after an error, and where the driver ended too early: a file that breaks off, a camera or a stream
that sends nothing any more. What was made until then is finished.
"""

import functools
import select
import sys

from hybrid_jax import cli
from hybrid_jax.errors import InputError
from hybrid_jax.reenactment.live import options, run
from hybrid_jax.reenactment.model import load_model


def typed() -> str:
  """Returns a line that was typed in the terminal, '' if there is none; never waits."""
  if not sys.stdin or not sys.stdin.isatty() or not select.select([sys.stdin], [], [], 0)[0]:
    return ''
  return sys.stdin.readline()


def main() -> None:
  """Runs the command."""
  chosen, live = options.parse(options.build_parser(__doc__))
  # A pipe carries pictures: messages must not get between them.
  say = functools.partial(print, file=sys.stderr if chosen.output == '-' else None, flush=True)
  with cli.running('stopped at once; an unfinished file is in parts beside the output'):
    run.check(chosen, live)
    model = load_model(chosen.workdir)
    with run.stopped_by_signals() as stop:
      report = run.reenact(model, chosen, live, say=say, keys=typed, stop=stop)
    for line in report.lines():
      say(line)
    if report.broken:
      raise InputError(report.broken)


if __name__ == '__main__':
  cli.command(main)
