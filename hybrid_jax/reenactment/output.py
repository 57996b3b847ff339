"""Where a re-enactment is written: the output, its signature, and the folder of its parts."""

import json
import pathlib
import shutil
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from hybrid_jax.errors import InputError
from hybrid_jax.media import replacing, sound, video
from hybrid_jax.media.segments import PictureTarget, VideoTarget
from hybrid_jax.provenance import record as provenance
from hybrid_jax.reenactment import motion_file
from hybrid_jax.reenactment.options import CODECS, Options


def open_target(
  options: Options,
  time_base: Fraction,
  comment: str = '',
  sign: Callable[[pathlib.Path], None] | None = None,
) -> VideoTarget | PictureTarget:
  """The file or folder to write. Raises InputError if the output cannot hold the codec."""
  suffix = pathlib.Path(options.output).suffix.lower()
  if not suffix:
    return PictureTarget(options.output, comment=comment, sign=sign)
  encoder, suffixes = CODECS[options.codec]
  if suffix not in suffixes:
    raise InputError(
      f'{options.output}: {options.codec} goes into {", ".join(suffixes)} (.webm takes vp9); '
      'without a suffix it is a folder of PNG files'
    )
  return VideoTarget(
    options.output,
    time_base,
    codec=encoder,
    crf=options.crf,
    audio_from=options.driving if _has_sound(options) else None,
    comment=comment,
    sign=sign,
  )


def sound_note(options: Options) -> str:
  """Returns a line if the sound of the driving clip will not be copied; '' if it will."""
  with_sound = pathlib.Path(options.output).suffix and _has_sound(options)
  return sound.outlook(options.driving, options.output) if with_sound else ''


def _has_sound(options: Options) -> bool:
  is_clip = options.audio and not motion_file.is_motion(options.driving)
  return is_clip and video.probe(options.driving).audio is not None


def open_signer(
  options: Options, record: Mapping[str, Any]
) -> Callable[[pathlib.Path], None] | None:
  """Returns what signs a file of the output, see `provenance.open_signer`."""
  return provenance.open_signer(
    options.output,
    options.codec,
    options.certificate,
    options.key,
    record,
    composite=options.layout != 'result',
  )


def work_folder(
  output: str, hashes: Mapping[str, str], options: object, model: str
) -> pathlib.Path:
  """Returns the folder beside `output` for the parts of this job; removes parts of other jobs."""
  path = pathlib.Path(output)
  folder = path.with_name(f'.{path.name}.parts')
  # Contents and not names: segments of two versions of a clip must never be joined.
  job = json.dumps([repr(options), model, list(hashes.values())])
  note = folder / 'job.json'
  if not note.is_file() or note.read_text() != job:
    if folder.exists():
      shutil.rmtree(folder)
    try:
      folder.mkdir()
    except OSError as error:
      raise InputError(f'{folder}: cannot be made ({error.strerror})') from error
    with replacing(note) as part:
      part.write_text(job)
  return folder
