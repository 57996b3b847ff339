"""Where a re-enactment is written: the output, its signature, and the folder of its parts."""

import json
import math
import pathlib
import shutil
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from hybrid_jax.errors import InputError
from hybrid_jax.media import refuse_target, replacing, sound, video
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


def check_target(options: Options) -> None:
  """Raises InputError for an output, or a file beside it, that could not be written in the end."""
  output = pathlib.Path(options.output)
  if output.name in ('', '..'):
    raise InputError(f'--output={options.output}: give the name of a file, or of a new folder')
  tables = options.quality or options.min_identity is not None
  beside = [f'{output}.json', *(f'{output}.quality.{kind}' for kind in ('csv', 'png') if tables)]
  written = [options.output, *beside]
  # A folder is replaced only where it holds pictures of an earlier run: see `PictureTarget`.
  for path in written if output.suffix else beside:
    refuse_target(path)
  open_target(options, Fraction(1, 1000))  # raises if suffix and codec do not fit; opens no file
  # x264's scale ends at 51, that of VP9 at 63; both refuse more, or cut it off.
  most = {'h264': 51, 'vp9': 63}.get(options.codec, math.inf)
  if options.crf > most:
    raise InputError(f'--crf={options.crf:g}: {options.codec} takes 0 to {most}')
  crops = options.save_crops
  if crops and pathlib.Path(crops).resolve() in {pathlib.Path(p).resolve() for p in written}:
    raise InputError(f'--save-crops={crops}: is a file of --output too; give another name')


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


def parts_of(output: str) -> pathlib.Path:
  """Returns the path of the folder beside `output` for the parts of an unfinished run."""
  path = pathlib.Path(output)
  return path.with_name(f'.{path.name}.parts')


def work_folder(
  output: str,
  hashes: Mapping[str, str],
  options: object,
  model: str,
  say: Callable[[str], None] = lambda line: None,
) -> pathlib.Path:
  """Returns the folder of the parts of this job; removes parts of other jobs, and says so."""
  folder = parts_of(output)
  # Contents and not names: segments of two versions of a clip must never be joined.
  job = json.dumps([repr(options), model, list(hashes.values())])
  note = folder / 'job.json'
  if not note.is_file() or note.read_text() != job:
    if folder.exists():
      say(f'note     {folder}: parts of a run with other options or inputs, removed')
      shutil.rmtree(folder)
    try:
      folder.mkdir()
      with replacing(note) as part:
        part.write_text(job)
    except OSError as error:
      shutil.rmtree(folder, ignore_errors=True)
      raise InputError(f'{folder}: cannot be made ({error.strerror})') from error
  else:
    say(f'note     goes on from the parts of an earlier run in {folder}')
  return folder
