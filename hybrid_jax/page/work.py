"""What the page does for a visitor: previews of both inputs, and the re-enactment."""

import dataclasses
import functools
import json
import pathlib
import shutil
from typing import Any

import numpy as np

from hybrid_jax.errors import InputError
from hybrid_jax.media import stills
from hybrid_jax.method import cma
from hybrid_jax.page.limits import Limits
from hybrid_jax.page.session import Session
from hybrid_jax.page.stages import Show, Stages
from hybrid_jax.page.turns import Turns
from hybrid_jax.reenactment import edits, motion, run
from hybrid_jax.reenactment.inputs import Input, open_clip, open_picture
from hybrid_jax.reenactment.model import Model
from hybrid_jax.reenactment.options import Options
from hybrid_jax.training import estimate

SHOWN = 6  # heads in the preview of a clip
PREVIEW_SIDE = 192  # least side of a head in a preview, px
# A step of CMA takes as long as this many operations of a matrix product, over those of one picture
# of the generator; and s of compilation. By the bundled model (experiments/results/cma.json).
PASSES, COMPILING = 44, 11.0


@dataclasses.dataclass(frozen=True)
class Preview:
  """What the model sees of an input: heads (h, w, 3) uint8 side by side, and a line about it."""

  picture: np.ndarray
  line: str


@dataclasses.dataclass(frozen=True)
class Result:
  """A finished re-enactment.

  Attributes:
    video: the file, with the record inside.
    timeline: picture of the quality over time.
    tables: the sidecar and the table of the quality.
    lines: the report for people.
    record: what the sidecar holds.
  """

  video: str
  timeline: str
  tables: list[str]
  lines: list[str]
  record: dict[str, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Work:
  """One model and the settings of a server.

  Attributes:
    face_detector: file, see `Options`; '' takes square crops of heads only.
    directions: folder of edits, see `Options`; '' for those of the bundled model.
    limits: of uploads.
    turns: of the renders of all visitors.
  """

  model: Model
  face_detector: str = ''
  directions: str = ''
  limits: Limits = Limits()
  turns: Turns = dataclasses.field(default_factory=Turns)

  @functools.cached_property
  def edits(self) -> tuple[str, ...]:
    """The names of the edits that this model can make."""
    if self.directions:
      files = pathlib.Path(self.directions).glob('*')
      names = sorted(path.stem for path in files if path.suffix.lower() in edits.SUFFIXES)
    else:
      names = edits.NAMES
    return tuple(name for name in names if self._can(name))

  def _can(self, name: str) -> bool:
    try:
      return bool(edits.resolve(f'{name}=0', self.directions, self.model))
    except InputError:  # a direction of another generator, or a file of components
      return False

  @functools.cached_property
  def cma_seconds(self) -> float:
    """Estimated duration of CMA with all its steps on this machine."""
    W_S = np.zeros((1, self.model.networks.hybrid.encoder.num_ws, self.model.G['w_avg'].shape[-1]))
    F = np.zeros((1, sum(self.model.widths)), np.float32)
    # Lowered and not compiled: its operations are counted in seconds at any size.
    program = self.model.fast.synthesis.lower(self.model.G, W_S.astype(np.float32), F, None)
    step = PASSES * program.cost_analysis()['flops'] / estimate.flops_per_second(1024, 1)
    return COMPILING + cma.Options().steps * step

  def source(self, session: Session, path: str, face: str, stages: Stages) -> Input:
    """Opens the portrait of a visitor, or returns it where it is open.

    Raises:
      InputError: see `inputs.open_picture`.
    """
    options = self._options(path, '', source_face=face).crop_options('source')
    make = functools.partial(open_picture, path, options, self.model)
    return session.opened('source', (path, face), make, stages)

  def driving(self, session: Session, path: str, face: str, stages: Stages) -> Input:
    """Opens and tracks the clip of a visitor, or returns it where it was tracked.

    Raises:
      InputError: too large or too long, or see `inputs.open_clip`.
      Stopped: see `Stages`.
    """

    def make() -> Input:
      self.limits.check(path)
      options = self._options('', path, face=face).crop_options('driving')
      track = session.folder / 'track.npz'
      track.unlink(missing_ok=True)  # of another clip
      return open_clip(path, options, self.model, track, stages)

    return session.opened('driving', (path, face), make, stages)

  def preview_source(self, session: Session, path: str, face: str, show: Show) -> Preview:
    """Returns the head of the portrait as the model sees it. Raises as `source`, and Stopped."""
    with session.working():
      opened = self.source(session, path, face, Stages(show, session.closed))
    return Preview(_enlarged(opened.head(self.model.size)), self._line(opened, 'source'))

  def preview_driving(self, session: Session, path: str, face: str, show: Show) -> Preview:
    """Returns heads spread over the clip as the model sees them. Raises as `driving`."""
    with session.working():
      opened = self.driving(session, path, face, Stages(show, session.closed))
    last = len(opened.track) - 1
    numbers = np.linspace(0, last, min(SHOWN, last + 1)).round().astype(int).tolist()
    heads = [_enlarged(head) for head in opened.crops(numbers, self.model.size)]
    lines = [self._line(opened, 'driving'), motion.missing_line(opened.missing, 'hold')]
    lines += [opened.track.others_line, opened.track.broken]
    return Preview(stills.grid([heads]), '; '.join(filter(None, lines)))

  def reenact(self, session: Session, show: Show, **chosen: Any) -> Result:
    """Re-enacts with the options that a visitor chose.

    Args:
      show: see `Stages`.
      chosen: fields of `Options`; `source` and `driving` are uploads.

    Raises:
      InputError: an input or an option that cannot be used.
      FloatingPointError: a result is not finite.
      Stopped: the job was cancelled, or the page was closed.
    """
    for role, what in (('source', 'a portrait'), ('driving', 'a driving clip')):
      if not chosen.get(role):
        raise InputError(f'give {what} first')
    stages = Stages(show, session.cancelled, session.closed)
    with session.working(), self.turns.turn(stages):
      folder = session.result_folder()
      options = self._options(output=str(folder / 'reenacted.mp4'), quality=True, **chosen)
      try:
        job = dataclasses.replace(
          run.check(self.model, options),
          source=self.source(session, options.source, options.source_face, stages),
          driving=self.driving(session, options.driving, options.face, stages),
          # Not in the user's cache: a tuned generator, and the pictures beside it, show the person.
          tunings=session.folder / 'cma',
        )
        report = run.write(job, progress=stages)
      except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    sidecar = pathlib.Path(f'{options.output}.json')
    return Result(
      video=options.output,
      timeline=f'{options.output}.quality.png',
      tables=[str(sidecar), f'{options.output}.quality.csv'],
      lines=[
        line.strip().replace(f'{folder}/', '').replace(f'{session.folder}/', '')
        for line in report.lines()
      ],
      record=json.loads(sidecar.read_text()),
    )

  def _options(self, source: str = '', driving: str = '', **chosen: Any) -> Options:
    chosen = {'output': '', **chosen}
    return Options(
      source=source,
      driving=driving,
      face_detector=self.face_detector,
      directions=self.directions,
      **chosen,
    )

  def _line(self, opened: Input, role: str) -> str:
    line = opened.describe(role, self.model.size)
    return line.partition(f'{opened.path}: ')[2]


def _enlarged(head: np.ndarray) -> np.ndarray:
  """Returns the head with each pixel repeated, so that the page shows what the model has."""
  k = max(1, -(-PREVIEW_SIDE // len(head)))
  return head.repeat(k, axis=0).repeat(k, axis=1)
