"""A re-enactment from files to files: inputs -> motion -> render -> report.

Each stage is a function that returns a dataclass. Tracks, motion and finished segments are kept in
a folder beside the output, from which a killed run resumes.
"""

import dataclasses
import errno
import json
import os
import pathlib
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from hybrid_jax import environment
from hybrid_jax.errors import InputError, memory_named
from hybrid_jax.media import clock, reason, refuse_overwriting, stills
from hybrid_jax.media.landmarkers import open_landmarker
from hybrid_jax.method import cma
from hybrid_jax.progress import Progress, silent
from hybrid_jax.provenance import record as provenance
from hybrid_jax.reenactment import edits, in_plane, motion, motion_file, quality, tuning
from hybrid_jax.reenactment.inputs import Input, Inputs, open_clip, open_input
from hybrid_jax.reenactment.lock import only_run
from hybrid_jax.reenactment.model import Model
from hybrid_jax.reenactment.motion import DrivingMotion
from hybrid_jax.reenactment.options import Options
from hybrid_jax.reenactment.output import (
  check_target,
  open_signer,
  open_target,
  sound_note,
  work_folder,
)
from hybrid_jax.reenactment.render import Layout, Rendered, Scene, render
from hybrid_jax.reenactment.report import Report

Say = Callable[[str], None]  # takes one line about the run
_FULL = (errno.ENOSPC, errno.EDQUOT)  # of a disk, and of what a user may have of it


@dataclasses.dataclass(frozen=True, eq=False)
class Job:
  """A re-enactment whose options have been checked, before any work.

  Attributes:
    hashes: SHA-256 of each file that the pictures depend on by its path, computed once.
    edits: resolved from the options.
    source, driving: the opened inputs, where they were given as such and not as files.
    tunings: folder of tuned generators; None is that of the user's cache.
  """

  model: Model
  options: Options
  hashes: Mapping[str, str]
  edits: Sequence[edits.Edit]
  source: Input | None = None
  driving: Input | None = None
  tunings: pathlib.Path | None = None


def given_files(options: Options) -> list[str]:
  """Returns the input files of a re-enactment."""
  files = (options.source, options.driving, options.source_landmarks, options.driving_landmarks)
  return [name for name in files if name]


def hash_files(options: Options) -> dict[str, str]:
  """Returns the SHA-256 of every file that the pictures depend on, by its path."""
  files = given_files(options)
  # They choose the face: another detector of the same name gives another track.
  files += [options.face_detector]
  files += [face.removeprefix('like=') for face in (options.source_face, options.face)]
  return {path: environment.sha256(path) for path in files if os.path.isfile(path)}


def check(model: Model, options: Options) -> Job:
  """Checks everything that can be checked before work begins, and hashes the inputs.

  Raises:
    InputError: an option or a file that cannot be used.
  """
  given = given_files(options)
  for path in given:
    if not os.path.isfile(path):
      raise InputError(f'{path}: no such file')
  refuse_overwriting([options.output, options.save_crops], given)
  check_target(options)
  check_options(model, options)
  resolved = edits.resolve(options.edit, options.directions, model)
  # After the cheap checks: hashing reads every byte of the clip.
  return Job(model, options, hash_files(options), resolved)


def check_options(model: Model, options: Options) -> None:
  """Raises InputError for options that exclude each other, or that this model cannot serve."""
  quality.refuse(model, options.min_identity)
  if options.save_crops:
    stills.check_target(options.save_crops)
  if options.cma == 'cma' and motion_file.is_motion(options.driving):
    raise InputError(
      f'{options.driving}: has motion only, and --cma needs driving frames; give the clip, or '
      'tune to the source alone with --cma=pti'
    )
  located = any(options.crop_options(role).locates for role in ('source', 'driving'))
  if options.crop not in ('', 'whole') and not located:
    raise InputError(f'--crop={options.crop}: needs --face-detector or a file of landmarks')


def reenact(
  model: Model, options: Options, *, progress: Progress = silent, say: Say = lambda line: None
) -> Report:
  """Writes the video of the source person with the driver's motion.

  Args:
    progress: shows how far each stage is.
    say: takes each line about the run as soon as there is one.

  Raises:
    InputError: an input or an option that cannot be used.
    FloatingPointError: a result is not finite.
  """
  return write(check(model, options), progress=progress, say=say)


def write(job: Job, *, progress: Progress = silent, say: Say = lambda line: None) -> Report:
  """Does what `reenact` does, of a job that has been checked."""
  output = job.options.output
  try:
    with only_run(output), memory_named(less_memory(job.options)):
      return _write(job, progress, say)
  except OSError as error:
    if error.errno not in _FULL:
      raise
    raise InputError(f'{output}: cannot be written ({reason(error)}); make room') from error


def _write(job: Job, progress: Progress, say: Say) -> Report:
  options = job.options
  record = provenance_record(job)
  sign = open_signer(options, record)
  weights = ''.join(job.model.digests.values()) + edits.digest(job.edits)
  # Sound is added when the pictures are joined: with or without it, they can be used again.
  pictures = dataclasses.replace(options, audio=True)
  folder = work_folder(options.output, job.hashes, pictures, weights, say)
  try:
    report = run(job, record, sign, folder, progress, say)
    if report.measured:
      report.measured.write(options.output, options.min_identity)
    figures = {'frames': report.frames, 'size': list(report.shape)}
    # Last of all files: a sidecar means that the output and its tables are complete.
    provenance.seal(options.output, record, figures | report.quality, signed=sign is not None)
  except BaseException as error:
    # A wrong option leaves nothing beside the output, unless finished segments can be resumed.
    if isinstance(error, InputError) and not any(folder.glob('0*')):
      shutil.rmtree(folder)
    else:
      say(f'note     {folder} is kept: the same command goes on from it; or remove it')
    raise
  shutil.rmtree(folder)
  return report


def less_memory(options: Options) -> str:
  """Returns what to do if a re-enactment runs out of memory."""
  if options.batch_size > 1:
    return f'lower --batch-size (now {options.batch_size})'
  return 'take a device with more memory, or JAX_PLATFORMS=cpu'


# --- The stages ----------------------------------------------------------------------------------


def run(
  job: Job,
  record: dict[str, Any],
  sign: Callable[[pathlib.Path], None] | None,
  folder: pathlib.Path,
  progress: Progress,
  say: Say,
  target: Any = None,
) -> Report:
  """Runs all stages of a checked job.

  Args:
    record: the provenance, which the output holds; a tuned generator is added to it.
    sign: signs each file of the output; None leaves it unsigned.
    folder: for the parts.
    target: takes the pictures; by default the file or folder of `options.output`.

  Raises:
    InputError, FloatingPointError: as `reenact`.
  """
  began, model, options = time.perf_counter(), job.model, job.options
  motion.prepare(model, options, job.driving, folder)
  inputs = open_inputs(job, folder, progress)
  for line in describe(inputs, options, model.size):
    say(line)
  if sound := sound_note(options):
    say(f'note     {sound}')
  # All rows before the first picture: relative motion needs the most neutral frame of the clip.
  driven = motion.read_motion(model, options, inputs.driving, folder, job.hashes, progress)
  staged = stage(job, record, inputs, driven, folder, progress, say)
  for line in describe_model(staged.scene.model, options):
    say(line)
  scene = staged.scene
  if target is None:
    # The record is complete only now: staging may have added a tuned generator. `sign` holds the
    # same dictionary, and reads it when the target calls it.
    target = open_target(options, scene.plan.time_base, json.dumps(record), sign)
  rendered, measured = render_measured(scene, target, folder, progress, staged.watch, options)
  notes = [rendered.sound, motion.missing_line(driven.missing, options.on_missing)]
  if inputs.driving:
    notes += [inputs.driving.track.others_line, inputs.driving.track.broken]
  if options.certificate:
    notes.append(provenance.signing_obstacle(options.output, options.codec))
  return Report(
    output=options.output,
    frames=len(scene.plan),
    shape=scene.layout.shape,
    seconds=time.perf_counter() - began,
    reused=rendered.reused,
    notes=tuple(notes),
    seams=np.array(scene.layout.seams),
    tuning=staged.tuning,
    jitter=staged.jitter.value,
    jitter_before=motion.jitter_of(driven.motion.rows) if options.smooth_motion else None,
    measured=measured,
    least_identity=options.min_identity,
  )


@dataclasses.dataclass(frozen=True, eq=False)
class Staged:
  """A scene that is ready to be rendered, and what measures it.

  Attributes:
    tuning: one line about CMA or PTI; ''.
    jitter: of the rows that have been rendered so far.
    watch: measures the results; None measures nothing.
  """

  scene: Scene
  tuning: str
  jitter: motion.Jitter
  watch: quality.Watch | None


def stage(
  job: Job,
  record: dict[str, Any],
  inputs: Inputs,
  driven: DrivingMotion,
  folder: pathlib.Path,
  progress: Progress,
  say: Say,
) -> Staged:
  """Prepares the scene from the motion: identity (eq. 1), tuning, relative motion, layout."""
  model, options = job.model, job.options
  head, tuning_line = inputs.source.head(model.size), ''
  if options.save_crops:
    write_crops(options.save_crops, head, inputs.driving)
  # Before tuning: CMA bends the generator around this w_id, and leaves encoder and w_avg alone.
  W_S = model.identity(head)
  if options.cma:
    model, summary = tune(model, options, inputs, driven.missing, progress, job.tunings)
    say(f'{options.cma:<9}{summary}')
    tuning_line = f'{options.cma}: {summary}'
    record['weights']['adjusted_generator_sha256'] = model.digests['generator']
  rows, reference = motion.adapt(model, options, driven, head)
  if reference is not None:
    frame, at = driven.frames[reference], float(driven.motion.time(reference))
    say(f'motion   relative to frame {frame} at {at:.2f} s, gain {options.gain:g}')
  jitter = motion.Jitter()
  rows = jitter(rows)
  # The sound is moved by the same time, see `media.sound`; a motion file has none.
  origin = clock.start_of(options.driving) if inputs.driving else driven.motion.time(0)
  plan = motion.plan(driven.motion, options.fps, origin)
  # Of the whole clip and not of what is left of it: a resumed run then has the same batches.
  batch = min(options.batch_size, len(plan))
  # The untuned model judges, so that the identity is comparable between runs.
  watch = open_watch(job, head, folder, batch)
  rows = watch.motion(rows) if watch else rows
  place = None
  if options.in_plane:
    gain = 1.0 if reference is None else options.gain
    place = in_plane.measure(driven.motion, reference, gain, options.smooth_motion)
  if place:
    say(f'in plane {place.describe()}')
  layout = Layout(options.layout, inputs, model.resolution, place)
  scene = Scene(model, W_S, rows, plan, driven.frames, layout, job.edits, batch)
  return Staged(scene, tuning_line, jitter, watch)


def open_inputs(job: Job, folder: pathlib.Path, progress: Progress) -> Inputs:
  """Stage 1: opens both inputs and finds the head in each."""
  model, options = job.model, job.options
  source, driving = job.source, job.driving
  if source is None:
    crop = options.crop_options('source')
    source = open_input(options.source, crop, model, folder / 'source.npz', progress)
  if driving is None and options.driving and not motion_file.is_motion(options.driving):
    crop = options.crop_options('driving')
    driving = open_clip(options.driving, crop, model, folder / 'driving.npz', progress)
  return Inputs(source, driving)


def describe(inputs: Inputs, options: Options, size: int) -> Iterator[str]:
  """Yields one line per input, and one per fault in the driving clip."""
  yield inputs.source.describe('source', size)
  if inputs.driving is None:
    yield f'driving  {options.driving}: a motion file'
    return
  yield inputs.driving.describe('driving', size)
  missing = motion.missing_line(inputs.driving.missing, options.on_missing)
  track = inputs.driving.track
  for line in filter(None, (missing, track.others_line, track.broken)):
    yield f'note     {line}'


def describe_model(model: Model, options: Options) -> Iterator[str]:
  """Yields one line on the model, one on its edits, and a warning if its networks are random."""
  yield f'model    {model.name}, {model.resolution} px'
  if options.edit:
    yield f'edit     {options.edit}'
  if set(model.config.weights.values()) == {'random'}:
    yield 'note     its frozen networks are RANDOM: the video shows that the parts run, not a face'


def open_watch(
  job: Job, head: np.ndarray, folder: pathlib.Path, batch: int
) -> quality.Watch | None:
  """Returns what measures the results, `batch` at a time, if the options ask for it."""
  options = job.options
  if not options.quality and options.min_identity is None:
    return None
  detector = open_landmarker(options.face_detector) if options.face_detector else None
  return quality.Watch(job.model, head, detector, folder / 'quality.txt', batch)


def write_crops(path: str, head: np.ndarray, driving: Input | None) -> None:
  """Writes a picture of what the model sees: the source's head and a sheet of the driver's."""
  rows = driving.sheet(len(head)) if driving else []
  stills.write_image(path, stills.grid([[head], *rows]))


def tune(
  model: Model,
  options: Options,
  inputs: Inputs,
  missing: np.ndarray,
  progress: Progress,
  folder: pathlib.Path | None = None,
) -> tuple[Model, str]:
  """Returns the model with its generator tuned (eqs. 15-18 for CMA), and a summary in one line."""
  tuning_options = cma.Options(options.cma, options.cma_lambda, options.cma_rate, options.cma_steps)
  source, driving = inputs.source, inputs.driving
  head = source.head(tuning.compared_at(model, source.sides[source.first_face], tuning.ENLARGED))

  def crops(numbers: list[int]) -> Iterator[np.ndarray]:
    # One size for all drivers, so that they share a program: that of the smallest.
    return driving.crops(numbers, tuning.compared_at(model, driving.sides[numbers].min()))

  found = np.flatnonzero(~missing)
  return tuning.to_clip(model, tuning_options, head, crops, found, progress, folder)


def render_measured(
  scene: Scene, target: Any, folder: pathlib.Path, progress: Progress, watch: Any, options: Options
) -> tuple[Rendered, quality.Measured | None]:
  """Stage 3: renders; returns its result and the measurements, None without a watch."""
  seconds = scene.plan.ticks * float(scene.plan.time_base)
  try:
    rendered = render(scene, target, folder, progress, watch)
  except FloatingPointError:
    if watch and options.output:  # the table shows in which frame it stopped
      watch.measured(seconds, scene.plan.rows).write(options.output, options.min_identity)
    raise
  return rendered, watch.measured(seconds, scene.plan.rows) if watch else None


def provenance_record(job: Job) -> dict[str, Any]:
  """Returns the record of a job, see `provenance.record`."""
  options = job.options
  record = provenance.record(
    {
      'source': (options.source, job.hashes[options.source]),
      'driving': (options.driving, job.hashes[options.driving]),
    },
    job.model.digests,
    job.model.config.to_dict(),
    dataclasses.asdict(options),
  )
  if job.edits:
    record['edit_sha256'] = edits.digest(job.edits)
  return record
