"""The record of a result: what it was made of, and where that is written.

The same record is a comment in the container, part of the sidecar and, if the result is signed,
part of its content credentials. It names files without their folders.
"""

import datetime
import hashlib
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from hybrid_jax import __version__, environment
from hybrid_jax.provenance import credentials, sidecar

PACKAGES = ('jax', 'flax', 'numpy', 'av', 'opencv-python-headless', 'c2pa-python')
# Options that hold a path of this machine, or have a place of their own in the record. A result is
# published, and names of folders would reveal who made it, and where.
PRIVATE = {
  'source', 'driving', 'output', 'workdir', 'face_detector', 'source_landmarks',
  'driving_landmarks', 'save_crops', 'certificate', 'key', 'directions', 'source_face', 'face',
}  # fmt: skip


def record(
  files: Mapping[str, tuple[str, str]],
  weights: Mapping[str, str],
  config: Mapping[str, Any],
  options: Mapping[str, Any],
) -> dict[str, Any]:
  """Returns the record of a result that is about to be made.

  Args:
    files: path and SHA-256 of the inputs by role, 'source' and 'driving'.
    weights: SHA-256 of the weights in use by part, 'encoder' and 'generator'.
    config: the model's config; only its hash is recorded.
    options: all options of the run by name; those in `PRIVATE` are left out.
  """
  # Sorted, so that the hash does not depend on the order in which fields were set.
  config_text = json.dumps(config, sort_keys=True, default=str)
  versions = environment.versions()
  return {
    'made': 'synthetic video: a person is shown making the motion of another clip',
    'hybrid_jax': __version__,
    **{
      role: {'name': pathlib.Path(path).name, 'sha256': sha256}
      for role, (path, sha256) in files.items()
    },
    'weights': {f'{part}_sha256': sha256 for part, sha256 in weights.items()},
    'config_sha256': hashlib.sha256(config_text.encode()).hexdigest(),
    'options': public_options(options),
    'versions': {name: versions[name] for name in ('python', *PACKAGES) if versions[name]},
  }


def public_options(options: Mapping[str, Any]) -> dict[str, Any]:
  """The options that a record may hold, as types of JSON."""
  return {
    # Fractions and other types become text: JSON has no type for them.
    name: value if isinstance(value, (bool, int, float, str, type(None))) else str(value)
    for name, value in options.items()
    if name not in PRIVATE
  }


def signing_obstacle(output: str, codec: str) -> str:
  """Returns why `output` cannot hold content credentials, or ''."""
  suffix = pathlib.Path(output).suffix.lower() or '.png'  # a folder of pictures
  if codec == 'ffv1':
    return 'content credentials are not put into FFV1; only the sidecar can be verified'
  if suffix not in credentials.SUFFIXES:
    return f'content credentials cannot be put into {suffix}; only the sidecar can be verified'
  return ''


def open_signer(
  output: str,
  codec: str,
  certificate: str,
  key: str,
  record: Mapping[str, Any],
  *,
  composite: bool,
) -> Callable[[pathlib.Path], None] | None:
  """Returns a function that signs a finished file of the result in place, or None.

  None without a certificate, or where there is a `signing_obstacle`. The function signs `record` as
  it is when it is called, so what the run adds to the dictionary until then is signed too.

  Args:
    certificate, key: see `credentials.load_signer`.
    composite: whether parts of the pictures were not made by a network.

  Raises:
    InputError: the certificate or its key cannot be used.
  """
  signer = credentials.load_signer(certificate, key)
  if signer is None or signing_obstacle(output, codec):
    return None
  path = pathlib.Path(output)

  def sign(file: pathlib.Path) -> None:
    title = path.name if path.suffix else f'{path.name}/{file.name}'
    credentials.sign(file, signer, record, title=title, composite=composite)

  return sign


def seal(
  output: str, record: Mapping[str, Any], figures: Mapping[str, Any], *, signed: bool
) -> None:
  """Writes the sidecar of a finished output.

  Args:
    figures: what was measured of it.
    signed: whether its files hold content credentials.
  """
  sidecar.write(
    output,
    record,
    credentials='within the file' if signed else 'none',
    written=datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
    figures=dict(figures),
  )
