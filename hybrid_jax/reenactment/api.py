"""The Python API: `load`, `crop`, `Video`, and the functions behind `Model.reenact` and `.tune`.

Pictures are (h, w, 3) uint8 RGB and clips (t, h, w, 3); an argument that takes one takes a path
too. Times are in seconds. The options of the command are keyword arguments here, under the names
of the fields of `options.Options`. Input that cannot be used raises InputError, with one line.
"""

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import pathlib
import tempfile
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from hybrid_jax import environment
from hybrid_jax.errors import InputError, memory_named
from hybrid_jax.media import framing, refuse_overwriting, stills, video
from hybrid_jax.media.composite import even
from hybrid_jax.progress import Progress, silent
from hybrid_jax.provenance import record as provenance
from hybrid_jax.reenactment import edits, motion_file, run
from hybrid_jax.reenactment.inputs import Input, crop_picture, open_picture, recrop
from hybrid_jax.reenactment.lock import only_run
from hybrid_jax.reenactment.model import Model, load_model
from hybrid_jax.reenactment.options import CropOptions, Options
from hybrid_jax.reenactment.output import check_target, open_signer, open_target
from hybrid_jax.reenactment.quality import Measured
from hybrid_jax.reenactment.report import Report

FRAME_RATE = 25  # frames per second of a driving clip given as an array
# Options of the command that arguments and return values replace here.
_SET_BY_API = ('source', 'driving', 'output', 'workdir')


def load(workdir: str | os.PathLike = '') -> Model:
  """Returns the model of a training run or of an exported file; by default the bundled one.

  Args:
    workdir: folder of a training run, file of `hybrid_jax.export`, or folder of
      `hybrid_jax.convert`.

  Raises:
    InputError: there is no model, or a weight file that its config names is missing.
  """
  return load_model(os.fspath(workdir))


def crop(
  picture: Any,
  detector: str | os.PathLike = '',
  *,
  landmarks: str | os.PathLike = '',
  face: str = 'largest',
  kind: str = '',
) -> Input:
  """Returns the cropped head of a portrait, a source for `Model.reenact`; notebooks show it.

  Args:
    picture: a path or (h, w, 3) uint8.
    detector: YuNet .onnx or MediaPipe FaceLandmarker .task file. Without detector and landmarks the
      picture must be a square crop already.
    landmarks: a file of landmarks instead.
    face: which face: largest, left, right or a number from 0, counted from the left.
    kind: 'clip' (upright, with FFHQ's side and centre), 'fomm' (around the box of the face, as
      First Order Motion Model) or 'ffhq' (along the eyes). By default the kind that each model was
      trained on; the notebook shows 'ffhq'.

  Raises:
    InputError: unreadable, no face, or not square where nothing locates the face.
  """
  if kind not in ('', *framing.KINDS):
    raise InputError(f'kind={kind!r}: choose from {", ".join(map(repr, framing.KINDS))}')
  options = CropOptions(os.fspath(detector), os.fspath(landmarks), face, kind)
  name = _name(picture)
  rgb = picture if isinstance(picture, np.ndarray) else stills.read_image(name)
  return crop_picture(rgb, name, options)


@dataclasses.dataclass(frozen=True, eq=False)
class Video:
  """A re-enacted clip in memory.

  Attributes:
    frames: (t, h, w, 3) uint8 RGB.
    times: (t,) float64 presentation times, seconds; `save` writes the exact fractions.
    quality: measurements of each frame, see `quality.Measured`; None if switched off.
    report: of the run: notes on the inputs, jitter, CMA; see `report.Report`.
    record: the provenance, which `save` writes into the file and into its sidecar.
  """

  frames: np.ndarray
  times: np.ndarray
  quality: Measured | None
  report: Report
  record: dict[str, Any]
  _options: Options
  _exact_times: tuple[Fraction, ...]

  def save(
    self,
    path: str | os.PathLike,
    *,
    codec: str = '',
    crf: float = 18,
    audio: bool = True,
    certificate: str = '',
    key: str = '',
  ) -> pathlib.Path:
    """Writes the clip with the driver's sound, and its sidecar PATH.json; returns the path.

    Args:
      path: .mp4, .mov, .mkv or .webm; without a suffix a folder of PNG files.
      codec: 'h264', 'ffv1' or 'vp9'; by default what the suffix takes.
      crf: quality of H.264 and VP9, lower is better.
      audio: whether to copy the sound of the driving clip.
      certificate, key: PEM files for content credentials.

    Raises:
      InputError: the path cannot be written or cannot hold the codec.
    """
    path = pathlib.Path(path)
    codec = codec or ('vp9' if path.suffix.lower() == '.webm' else 'h264')
    # A driving clip given as an array was a temporary file without sound, and is deleted by now.
    sound = audio and os.path.isfile(self._options.driving)
    options = dataclasses.replace(
      self._options, output=str(path), codec=codec, crf=crf, audio=sound, certificate=certificate,
      key=key,
    )  # fmt: skip
    # The driving clip is still read: its sound is copied while the output is written.
    refuse_overwriting([path], run.given_files(options))
    # No tables are written here: the measurements are in `quality`.
    check_target(dataclasses.replace(options, quality=False, min_identity=None, save_crops=''))
    # The options of this file: codec and quality are chosen here, not when it was rendered.
    record = self.record | {'options': provenance.public_options(dataclasses.asdict(options))}
    sign = open_signer(options, record)
    target = open_target(options, self._time_base(), json.dumps(record), sign)
    # Beside the output, since a finished file or folder can only be renamed within a file system.
    with only_run(path), tempfile.TemporaryDirectory(dir=path.absolute().parent) as folder:
      with target.segment(pathlib.Path(folder), 0, self.frames.shape[1:3]) as write:
        for frame, time in zip(self.frames, self._exact_times, strict=True):
          write(frame, time)
      target.finish(pathlib.Path(folder), 1)
    figures = {'frames': len(self.frames), 'size': list(self.frames.shape[1:3])}
    provenance.seal(str(path), record, figures | self.report.quality, signed=sign is not None)
    return path

  def show(self) -> Any:
    """Plays the clip in a notebook; elsewhere writes a temporary .mp4 file and returns its path.

    Where there is a desktop, the file is opened too. It is not deleted.
    """
    if _in_notebook():
      from IPython import display

      return display.display(display.HTML(self._repr_html_()))
    # Kept after this call: the player that is started below reads it later.
    file = tempfile.NamedTemporaryFile(suffix='.mp4', delete=False)
    file.close()
    self._write_preview(pathlib.Path(file.name))
    if os.environ.get('DISPLAY') or os.environ.get('WAYLAND_DISPLAY') or os.name == 'nt':
      import webbrowser

      webbrowser.open(pathlib.Path(file.name).as_uri())
    return file.name

  def _time_base(self) -> Fraction:
    """The largest unit of which all times are integer multiples, so that none is rounded."""
    return Fraction(1, math.lcm(*(time.denominator for time in self._exact_times)))

  def _write_preview(self, path: pathlib.Path) -> None:
    h, w = even(self.frames[0]).shape[:2]  # H.264 takes even sides only
    sound = self._options.driving
    # A motion file is no clip: FFmpeg cannot open it.
    clip = os.path.isfile(sound) and not motion_file.is_motion(sound)
    sound = sound if clip and video.probe(sound).audio else None
    with video.VideoWriter(path, h, w, time_base=self._time_base(), audio_from=sound) as writer:
      for frame, time in zip(self.frames, self._exact_times, strict=True):
        writer.write(even(frame), time)

  def _repr_html_(self) -> str:
    """Returns a player with the clip inside, for notebooks."""
    import base64

    # Inside the page: a notebook that is moved or sent has no path to a file of this machine.
    with tempfile.TemporaryDirectory() as folder:
      path = pathlib.Path(folder) / 'preview.mp4'
      self._write_preview(path)
      data = base64.b64encode(path.read_bytes()).decode()
    # At 64 px the player's controls would cover the face.
    style = 'min-width: 256px; max-width: 100%'
    source = f'data:video/mp4;base64,{data}'
    return f'<video controls loop autoplay muted style="{style}" src="{source}"></video>'


def reenact(
  model: Model,
  source: Any,
  driving: Any,
  *,
  driving_fps: float | Fraction = FRAME_RATE,
  progress: Progress | None | bool = True,
  quality: bool = True,
  **options: Any,
) -> Video:
  """Does what `Model.reenact` documents.

  Args:
    driving_fps: frame rate of `driving` if it is an array, frames per second.
    progress: True shows bars, None and False nothing; or a callback, see `progress.Progress`.
    quality: whether to measure each frame.
    options: fields of `options.Options` but source, driving, output and workdir.

  Raises:
    InputError: an input or an option that cannot be used.
    FloatingPointError: a result is not finite.
  """
  with _folder() as folder:
    # The command's own stages, with another target: equal frames by construction. The folder of
    # parts is temporary, since a call in memory has nothing from which another could go on.
    job = _job(model, source, driving, driving_fps, folder, {**options, 'quality': quality})
    run.check_options(model, job.options)
    record, target = run.provenance_record(job), _MemoryTarget()
    with memory_named(run.less_memory(job.options)):
      report = run.run(job, record, None, folder, _bars(progress), lambda line: None, target)
  return Video(
    frames=np.stack(target.frames),
    times=np.array([float(time) for time in target.times]),
    quality=report.measured,
    report=report,
    record=record,
    _options=job.options,
    _exact_times=tuple(target.times),
  )


def tune(
  model: Model,
  source: Any,
  driving: Any = None,
  *,
  method: str = 'cma',
  driving_fps: float | Fraction = FRAME_RATE,
  progress: Progress | None | bool = True,
  **options: Any,
) -> Model:
  """Does what `Model.tune` documents; arguments as of `reenact`.

  Raises:
    InputError: an input or an option that cannot be used.
    FloatingPointError: the loss, or the tuned generator, is not finite.
  """
  if driving is None and method == 'cma':
    raise InputError("method='cma' needs the driving clip; or tune to the source by method='pti'")
  with _folder() as folder:
    bars = _bars(progress)
    job = _job(model, source, driving, driving_fps, folder, {**options, 'cma': method})
    inputs = run.open_inputs(job, folder, bars)
    missing = inputs.driving.missing if inputs.driving else np.zeros(0, bool)
    # The drivers are frames of the clip that show a face (eqs. (15)-(18)); PTI takes none.
    with memory_named('take a device with more memory, or JAX_PLATFORMS=cpu'):
      tuned, _ = run.tune(model, job.options, inputs, missing, bars)
  return tuned


def _job(
  model: Model,
  source: Any,
  driving: Any,
  fps: float | Fraction,
  folder: pathlib.Path,
  options: dict[str, Any],
) -> run.Job:
  """Returns the job of inputs that may be arrays. Raises InputError."""
  # Checked here: the error of the dataclass would name __init__ and no options.
  known = {field.name for field in dataclasses.fields(Options)} - set(_SET_BY_API)
  if unknown := sorted(set(options) - known):
    raise InputError(f'{", ".join(unknown)}: not an option; options are {", ".join(sorted(known))}')
  clip = _clip(driving, folder, fps) if driving is not None else ''
  name = source.path if isinstance(source, Input) else _name(source)
  chosen = Options(source=name, driving=clip, output='', **options)
  if isinstance(source, np.ndarray):
    source = open_picture(source, chosen.crop_options('source'), model)
  opened = source if isinstance(source, Input) else None
  if opened is not None and not opened.kind:
    opened = recrop(opened, chosen.crop or model.crop)
  hashes = {path: environment.sha256(path) for path in (name, clip) if os.path.isfile(path)}
  # The provenance names a hash of each input: of an array that of its bytes stands in for a file's.
  if opened is not None:
    hashes.setdefault(name, hashlib.sha256(np.ascontiguousarray(opened.picture)).hexdigest())
  resolved = edits.resolve(chosen.edit, chosen.directions, model)
  return run.Job(model, chosen, hashes, resolved, opened)


class _MemoryTarget:
  """Takes the pictures of a render as arrays; see `segments.VideoTarget` for the methods."""

  def __init__(self):
    self.frames: list[np.ndarray] = []
    self.times: list[Fraction] = []

  def done(self, folder: pathlib.Path) -> int:
    """No segment of an earlier run."""
    return 0

  @contextlib.contextmanager
  def segment(self, folder: pathlib.Path, k: int, shape: tuple[int, int]) -> Iterator:
    """Gives write(rgb (h, w, 3), time)."""

    def write(rgb: np.ndarray, time: Fraction) -> None:
      # Copied: a picture may be a view of its whole batch, which it would keep in memory.
      self.frames.append(np.array(rgb))
      self.times.append(time)

    yield write

  def finish(self, folder: pathlib.Path, count: int) -> str:
    """Nothing to join, and no note on the sound."""
    return ''


@contextlib.contextmanager
def _folder() -> Iterator[pathlib.Path]:
  """A temporary folder, whose name is left out of messages."""
  with tempfile.TemporaryDirectory() as name:
    try:
      yield pathlib.Path(name)
    # The caller gave an array, and has never seen this folder.
    except InputError as error:
      raise InputError(str(error).replace(f'{name}{os.sep}', '')) from None


def _name(source: Any) -> str:
  """Returns the path of a source, or 'array', which stands for one in messages."""
  return 'array' if isinstance(_checked_array(source, 3, 'source'), np.ndarray) else _path(source)


def _clip(driving: Any, folder: pathlib.Path, fps: float | Fraction) -> str:
  """Returns the path of the driving clip; frames (t, h, w, 3) become a file in the folder."""
  if not isinstance(_checked_array(driving, 4, 'driving'), np.ndarray):
    return _path(driving)
  path, rate = folder / 'driving.mp4', Fraction(fps).limit_denominator(100_000)
  if not 0 < rate <= 1000:
    raise InputError(f'driving_fps={fps}: must be above 0 and at most 1000')
  h, w = driving.shape[1:3]
  # Lossless, so that arrays and files give the same frames. In units of a frame, so that the times
  # are exact: 30000/1001 has no finite decimal.
  with video.VideoWriter(path, h, w, time_base=1 / rate, codec='ffv1') as writer:
    for k, frame in enumerate(driving):
      writer.write(frame, k / rate)
  return str(path)


def _checked_array(given: Any, axes: int, name: str) -> Any:
  """Returns what is given. Raises InputError for an array that is no picture or clip."""
  shape = '(h, w, 3)' if axes == 3 else '(t, h, w, 3)'
  if not isinstance(given, np.ndarray | str | os.PathLike):
    raise InputError(f'{name}: a {type(given).__name__}; give a path or an array {shape} of uint8')
  if isinstance(given, np.ndarray):
    fits = given.ndim == axes and given.shape[-1] == 3 and given.size
    if given.dtype != np.uint8 or not fits:
      raise InputError(f'{name}: an array {given.shape} of {given.dtype}; give {shape} of uint8')
  return given


def _path(given: str | os.PathLike) -> str:
  """Returns the path of an existing file. Raises InputError."""
  if not os.path.isfile(given):
    raise InputError(f'{os.fspath(given)}: no such file')
  return os.fspath(given)


def _bars(progress: Progress | None | bool) -> Progress:
  """Returns the callback of a `progress` argument."""
  if not progress:
    return silent
  if progress is not True:
    return progress
  from tqdm.auto import tqdm  # a widget in a notebook

  return lambda items, description, total: tqdm(items, desc=description, total=total)


def _in_notebook() -> bool:
  try:
    from IPython import get_ipython
  except ImportError:
    return False
  shell = get_ipython()
  # IPython in a terminal has a shell too, but no kernel, and cannot play a clip.
  return shell is not None and shell.has_trait('kernel')
