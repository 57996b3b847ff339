"""Re-enacts a portrait with a driving video: the person of one, the motion of the other.

  python -m hybrid_jax.reenact --source portrait.png --driving clip.mp4 --output out.mp4

  # photographs and films: find the face, put the result back into the picture
  python -m hybrid_jax.reenact --source me.jpg --driving clip.mov --output out.mp4 \\
      --face-detector face_detection_yunet.onnx --layout pasted

  # another person's face shape: take only how the motion differs from a neutral frame
  python -m hybrid_jax.reenact ... --motion relative --gain 1.2

  # out of the ordinary: first tune the generator to this source and driver (minutes, then kept)
  python -m hybrid_jax.reenact ... --cma

  # the motion once, any source later
  python -m hybrid_jax.extract_motion --driving clip.mp4 --output talk.safetensors
  python -m hybrid_jax.reenact --source me.png --driving talk.safetensors --output out.mp4

  # another person than the source: glasses from the first second on (edit_sheet shows them)
  python -m hybrid_jax.reenact ... --edit glasses=0@0s,1@1s,hair_dark=-0.5
  python -m hybrid_jax.reenact ... --directions ffhq_directions --edit age=+2,smile=-1

Without --face-detector (or files of landmarks) both inputs must be square crops of the head.
Frames keep the presentation times of the driving video, and its sound is copied. A run that was
killed goes on from its last finished part when the same command is given again.

An --output without a suffix is a folder of PNG files with their times in timestamps.csv.

Beside OUTPUT comes OUTPUT.json, what it was made of (hybrid_jax.verify reads it); with --quality
also OUTPUT.quality.csv and .png, how each frame fares. The exit code is 3 where a finished output
has a frame below --min-identity, and 1 after an error.
"""

import json
import pathlib
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from fractions import Fraction

import numpy as np
from tqdm import tqdm

from hybrid_jax.cli import running
from hybrid_jax.errors import InputError
from hybrid_jax.media import refuse_overwriting, stills, video
from hybrid_jax.media.landmarkers import open_landmarker
from hybrid_jax.media.segments import PictureTarget, VideoTarget
from hybrid_jax.method import cma
from hybrid_jax.provenance import record
from hybrid_jax.reenactment import edits, motion_file, pipeline, quality, tuning
from hybrid_jax.reenactment.edits import Edit
from hybrid_jax.reenactment.model import Model, load_model
from hybrid_jax.reenactment.options import CODECS, Options, parse
from hybrid_jax.reenactment.pipeline import Cropping, Input


def bar(items: Iterable, what: str, total: int | None) -> Iterable:
  return tqdm(items, desc=what, total=total, unit='frame')


def target_of(
  options: Options,
  time_base: Fraction,
  comment: str = '',
  sign: Callable[[pathlib.Path], None] | None = None,
) -> VideoTarget | PictureTarget:
  """Raises InputError where the output is of a kind that cannot be written."""
  suffix = pathlib.Path(options.output).suffix.lower()
  if not suffix:
    return PictureTarget(options.output, comment=comment, sign=sign)
  encoder, suffixes = CODECS[options.codec]
  if suffix not in suffixes:
    raise InputError(
      f'{options.output}: {options.codec} goes into {", ".join(suffixes)} (.webm takes vp9); '
      'without a suffix it is a folder of PNG files'
    )
  sound = options.audio and not motion_file.is_motion(options.driving)
  return VideoTarget(
    options.output,
    time_base,
    codec=encoder,
    crf=options.crf,
    audio_from=options.driving if sound and video.probe(options.driving).audio else None,
    comment=comment,
    sign=sign,
  )


def describe(of: str, given: Input, how: Cropping, model: Model) -> str:
  """One line about an input."""
  clip = given.clip
  h, w = clip.size
  line = f'{of:<9}{given.path}: {w}x{h}'
  if given.moving:
    lasting = clip.seconds[-1] - clip.seconds[0]
    shots = f', {len(clip.cuts)} shots' if len(clip.cuts) > 1 else ''
    line += f', {len(clip)} frames in {lasting:.2f} s{shots}'
  kind = how.kind(model)
  sides = 2 * np.hypot(*given.squares[:, 2:].T)
  line += f', crop {kind} of {sides.min():.0f}' + (f' to {sides.max():.0f}' * given.moving) + ' px'
  if sides.min() < model.size / 2:
    line += f' (small for a model that sees {model.size} px)'
  return line


def missing_line(gone: np.ndarray, on_missing: str) -> str:
  """Where no face was found, as ranges."""
  edges = np.flatnonzero(np.diff(np.concatenate(([0], gone.astype(int), [0])))).reshape(-1, 2)
  ranges = [str(a) if b == a + 1 else f'{a}-{b - 1}' for a, b in edges[:8].tolist()]
  more = f' and {len(edges) - 8} more places' if len(edges) > 8 else ''
  return f'no face in {gone.sum()} of {len(gone)} frames ({", ".join(ranges)}{more}): {on_missing}'


def reenact(model: Model, options: Options) -> int:
  """Writes the video of the source doing what the driver does; returns the number of frames.

  Raises:
    InputError: any input that cannot be used.
    quality.LowQuality: a frame is below `min_identity`; everything is written.
  """
  output = pathlib.Path(options.output).absolute()
  if pathlib.Path(options.output).name in ('', '..'):
    raise InputError(f'--output={options.output}: give the name of a file, or of a new folder')
  if not output.parent.is_dir():
    raise InputError(f'{options.output}: the folder {output.parent} does not exist; make it first')
  given = [options.source, options.driving, options.source_landmarks, options.driving_landmarks]
  for path in filter(None, given):
    if not pathlib.Path(path).is_file():
      raise InputError(f'{path}: no such file')
  refuse_overwriting([options.output, options.save_crops], given)
  target_of(options, Fraction(1, 1000))  # refused before any work
  quality.refuse(model, options.min_identity)
  if options.cma == 'cma' and motion_file.is_motion(options.driving):
    raise InputError(
      f'{options.driving}: holds motion alone, and --cma looks at driving frames; give the clip, '
      'or tune to the source alone with --cma=pti'
    )
  if options.crop not in ('', 'whole') and not any(
    options.cropping(of).sought for of in ('source', 'driving')
  ):
    raise InputError(f'--crop={options.crop}: needs --face-detector or a file of landmarks')
  edit = edits.resolve(options.edit, options.directions, model)
  made = record.record(model, options)
  if edit:
    made['edit_sha256'] = edits.digest(edit)
  sign = record.pen(options, made)
  of_model = model.digest() + edits.digest(edit)
  folder = pipeline.work_folder(options.output, given, options, of_model)
  try:
    return _reenact(model, options, edit, folder, made, sign)
  except InputError:
    if not any(folder.glob('0*')):  # nothing was rendered that another run could go on from
      shutil.rmtree(folder)
    raise


def _reenact(
  model: Model,
  options: Options,
  edit: list[Edit],
  folder: pathlib.Path,
  made: dict,
  sign: Callable | None,
) -> int:
  began = time.perf_counter()
  how = options.cropping('source')
  if pipeline.is_moving(options.source):
    source = pipeline.open_clip(options.source, how, model, folder / 'source.npz', bar)
  else:
    source = pipeline.open_picture(options.source, how, model)
  print(describe('source', source, how, model))

  driving, gone = None, np.zeros(0, bool)
  if motion_file.is_motion(options.driving):
    motion = motion_file.read(options.driving)
    frames = np.arange(len(motion))
    if (motion.model, motion.widths) != (model.digest(), model.widths):
      raise InputError(f'{options.driving}: motion of another model; extract it with this one')
    print(f'driving  {options.driving}: motion of {len(motion)} frames')
  else:
    how = options.cropping('driving')
    driving = pipeline.open_clip(options.driving, how, model, folder / 'driving.npz', bar)
    print(describe('driving', driving, how, model))
    gone = pipeline.missing(driving, how)
    for line in (missing_line(gone, options.on_missing) if gone.any() else '', driving.clip.broken):
      if line:
        print(f'note     {line}')
    store, batch = folder / 'motion.safetensors', options.batch_size
    if not store.is_file():
      pipeline.extract(model, driving, how, options.on_missing, store, batch, bar)
    motion = motion_file.read(store)
    frames = np.flatnonzero(~gone) if options.on_missing == 'skip' else np.arange(len(gone))

  if options.save_crops:
    head = next(pipeline.crops(source, [first_face(source)], model.size))
    seen = pipeline.sheet(driving, model.size) if driving else []
    stills.write_image(options.save_crops, stills.grid([[head], *seen]))
  layout = pipeline.Layout(options.layout, source, driving, model.resolution)
  plan = motion_file.plan(motion, options.fps)
  head = next(pipeline.crops(source, [first_face(source)], model.size))
  W_S, untuned = model.identity(head), model
  if options.cma:
    how = cma.Options(options.cma, options.cma_lambda, options.cma_rate, options.cma_steps)
    crops = lambda chosen: pipeline.crops(driving, chosen, model.size)  # noqa: E731
    model, adjusted = tuning.to_clip(model, how, head, crops, np.flatnonzero(~gone))
    print(f'{options.cma:<9}{adjusted}')
    made['weights']['adjusted_generator_sha256'] = model.digests['generator']
  target = target_of(options, plan.time_base, json.dumps(made), sign)
  raw, final = motion_file.Jitter(), motion_file.Jitter()
  rows = final(moved(options, model, motion, head, raw))
  watch = None
  if options.quality or options.min_identity is not None:
    seeker = open_landmarker(options.face_detector) if options.face_detector else None
    store = folder / 'quality.txt'
    watch = quality.Watch(untuned, head, seeker, store, options.batch_size)
    rows = watch.motion(rows)
  print(f'model    {model.name}, {model.resolution} px')
  if edit:
    print(f'edit     {options.edit}')
  if set(model.config.weights.values()) == {'random'}:
    print('note     its frozen networks are RANDOM: the video shows the plumbing, not a face')
  each = model.speed(W_S, options.batch_size)
  print(
    f'estimate {len(plan)} frames at {1 / each:.3g} a second on the model alone: '
    f'{len(plan) * each:.3g} s'
  )

  figures = {'frames': len(plan), 'size': list(layout.shape)}
  seconds = plan.ticks * float(plan.time_base)
  measure = lambda: watch.finish(options.output, seconds, plan.rows, options.min_identity)  # noqa: E731
  try:
    reused, note = pipeline.render(
      model, W_S, rows, plan, frames, layout, target, folder, options.batch_size, bar, edit, watch
    )
  except FloatingPointError:
    if watch:
      measure()
    raise
  measured = measure() if watch else {}
  record.seal(options, made, figures | measured)
  shutil.rmtree(folder)
  h, w = layout.shape
  took = time.perf_counter() - began
  print(f'{options.output}: {len(plan)} frames of {w}x{h} in {took:.1f} s')
  told = [note]
  if reused:
    told.append(f'{reused} of them were rendered by an earlier run')
  if gone.any():
    told.append(missing_line(gone, options.on_missing))
  if driving is not None:
    told.append(driving.clip.broken)
  if layout.seams:
    told.append(
      f'seam: {np.mean(layout.seams):.1f} grey levels across the border on average, '
      f'{np.max(layout.seams):.1f} at worst'
    )
  if options.cma:
    told.append(f'{options.cma}: {adjusted}')
  told.append(f'jitter of the motion: {final.value:.2f}')
  if options.smooth_motion:
    told[-1] += f', {raw.value:.2f} before it was smoothed'
  told += quality.lines(measured) if measured else ()
  told.append(record.signs(options) if options.certificate else '')
  for line in filter(None, told):
    print(f'  {line}')
  if measured:
    quality.check(measured, options.min_identity, options.output)
  return len(plan)


def first_face(source: Input) -> int:
  """The frame of a source that gives the identity: the first with a face."""
  return int(source.clip.missing.argmin())


def moved(options: Options, model: Model, motion: motion_file.Motion, head: np.ndarray, raw):
  """The rows of a motion as the options want them: smoothed, and relative."""
  for _ in raw(motion.rows):
    pass
  rows = motion_file.smoothed(motion, options.smooth_motion)
  if options.motion == 'absolute':
    return rows
  k = motion_file.neutral(motion) if options.reference is None else options.reference
  if not 0 <= k < len(motion):
    raise InputError(f'--reference={k}: {options.driving} has frames 0 to {len(motion) - 1}')
  print(f'motion   relative to frame {k} at {float(motion.time(k)):.2f} s, gain {options.gain:g}')
  own = next(model.deformations([head], options.batch_size))
  return motion_file.relative(rows, np.array(motion.rows[k]), own, options.gain)


# --- The command ---------------------------------------------------------------------------------


def parse_args(argv: list[str] | None = None) -> Options:
  return parse(argv, __doc__)


def main() -> None:
  options = parse_args()
  with running('stopped; the same command goes on from the last finished part'):
    try:
      reenact(load_model(options.workdir), options)
    except quality.LowQuality as error:
      print(f'low quality: {error}', file=sys.stderr)
      sys.exit(3)


if __name__ == '__main__':
  main()
