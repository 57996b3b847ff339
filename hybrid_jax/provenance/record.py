"""What a result says of where it came from: the record, and where it is put.

The record lies in the container (a comment), in the sidecar and, where it is signed, in the content
credentials. It names files without their folders.
"""

import dataclasses
import datetime
import hashlib
import importlib.metadata
import json
import pathlib
import platform
from collections.abc import Callable, Mapping
from typing import Any

from hybrid_jax import __version__
from hybrid_jax.provenance import credentials, sidecar
from hybrid_jax.reenactment.model import Model

_PACKAGES = ('jax', 'flax', 'numpy', 'av', 'opencv-python-headless', 'c2pa-python')
# Fields of options that hold paths of this machine, or have a place of their own in the record.
_PRIVATE = {
  'source', 'driving', 'output', 'workdir', 'face_detector', 'source_landmarks',
  'driving_landmarks', 'save_crops', 'certificate', 'key', 'directions', 'source_face', 'face',
}  # fmt: skip


def record(model: Model, options: Any) -> dict[str, Any]:
  """Hashes of source, driver, weights and config, the options and the versions in use."""
  config = json.dumps(model.config.to_dict(), sort_keys=True, default=str)
  told = {
    name: value if isinstance(value, (bool, int, float, str, type(None))) else str(value)
    for name, value in dataclasses.asdict(options).items()
    if name not in _PRIVATE
  }
  return {
    'made': 'synthetic video: a person is shown making the motion of another clip',
    'hybrid_jax': __version__,
    **{of: _file(getattr(options, of)) for of in ('source', 'driving')},
    'weights': {f'{part}_sha256': digest for part, digest in model.digests.items()},
    'config_sha256': hashlib.sha256(config.encode()).hexdigest(),
    'options': told,
    'versions': {'python': platform.python_version()} | _versions(),
  }


def _file(path: str) -> dict[str, str]:
  return {'name': pathlib.Path(path).name, 'sha256': sidecar.sha256(path)}


def _versions() -> dict[str, str]:
  found = {}
  for name in _PACKAGES:
    try:
      found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      pass
  return found


def signs(options: Any) -> str:
  """Why a result cannot hold content credentials, or ''."""
  suffix = pathlib.Path(options.output).suffix.lower() or '.png'
  if options.codec == 'ffv1':
    return 'content credentials are not put into FFV1; the sidecar alone tells'
  if suffix not in credentials.SUFFIXES:
    return f'content credentials cannot be put into {suffix}; the sidecar alone tells'
  return ''


def pen(options: Any, made: Mapping) -> Callable[[pathlib.Path], None] | None:
  """What signs a file of the result; None where nobody does.

  Raises:
    InputError: the certificate or its key cannot be used.
  """
  signer = credentials.open_signer(options.certificate, options.key)
  if signer is None or signs(options):
    return None
  name, folder = pathlib.Path(options.output).name, not pathlib.Path(options.output).suffix
  composite = options.layout != 'result'

  def sign(path: pathlib.Path) -> None:
    title = f'{name}/{path.name}' if folder else name
    credentials.sign(path, signer, made, title=title, composite=composite)

  return sign


def seal(options: Any, made: Mapping, figures: Mapping) -> None:
  """Writes the sidecar of a finished output."""
  now = datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds')
  signed = 'none' if not options.certificate or signs(options) else 'within the file'
  sidecar.write(options.output, made, credentials=signed, written=now, figures=dict(figures))
