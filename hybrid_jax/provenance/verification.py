"""Verification of a result: its sidecar and its content credentials, and one verdict of both."""

import dataclasses
import json
import pathlib

from hybrid_jax.errors import InputError
from hybrid_jax.provenance import credentials, sidecar
from hybrid_jax.provenance.sidecar import Finding

VERDICTS = ('verified', 'altered', 'remuxed', 'no sidecar')
# Of the pictures of a folder the worst counts.
_WORST_FIRST = ('broken', 'unreadable', 'unchecked', 'none', 'untrusted', 'trusted')


@dataclasses.dataclass(frozen=True)
class Verification:
  """The outcome for one file or folder of pictures.

  Attributes:
    verdict: one of `VERDICTS`. reason: of the verdict, a phrase.
    sidecar, credentials: the findings of both checks.
    record: what the result was made of: the signed record, else the one of the sidecar, else None.
  """

  verdict: str
  reason: str
  sidecar: Finding
  credentials: Finding
  record: dict | None

  def lines(self) -> list[str]:
    """Returns a report for people, a line each."""
    lines = [
      f'sidecar      {self.sidecar.status}: {self.sidecar.message}',
      f'credentials  {self.credentials.status}: {self.credentials.message}',
      f'verdict      {self.verdict.upper()}: {self.reason}',
    ]
    if self.record:
      version = self.record.get('hybrid_jax', '?')
      lines.append(f'made         {self.record.get("made", "")} (hybrid_jax {version})')
      for role in ('source', 'driving'):
        # A sidecar is plain JSON that anybody can write, so its record may hold anything.
        file = self.record.get(role)
        file = file if isinstance(file, dict) else {}
        lines.append(f'{role:<13}{file.get("name")}, SHA-256 {file.get("sha256")}')
    return lines


def verify(path: str, sidecar_path: str = '', trust: str = '') -> Verification:
  """Compares a file, or a folder of pictures, with its sidecar and its content credentials.

  Args:
    sidecar_path: the sidecar; '' is the one beside `path`.
    trust: see `credentials.check`.

  Raises:
    InputError: `path` or `sidecar_path` does not exist, or the sidecar or `trust` cannot be used.
  """
  if not pathlib.Path(path).exists():
    raise InputError(f'{path}: no such file')
  place = sidecar_path or sidecar.place(path)
  written = sidecar.read(place)
  if sidecar_path and written is None:
    raise InputError(f'{sidecar_path}: no such file')
  # Both checks run even if one fails, since each finding is reported.
  of_credentials, signed_record = _check_credentials(pathlib.Path(path), trust)
  if written is None:
    of_sidecar, written_record = Finding('missing', f'{place} does not exist'), None
  else:
    of_sidecar, written_record = sidecar.compare(path, written), written['record']
  verdict, reason = judge(of_sidecar, of_credentials, written_record, signed_record)
  return Verification(verdict, reason, of_sidecar, of_credentials, signed_record or written_record)


def judge(
  of_sidecar: Finding,
  of_credentials: Finding,
  written_record: dict | None,
  signed_record: dict | None,
) -> tuple[str, str]:
  """Returns the verdict and its reason.

  Args:
    written_record, signed_record: of the sidecar and of valid content credentials, or None.
  """
  # The order matters: a broken signature outweighs a sidecar, which anybody can rewrite.
  if of_credentials.status == 'broken':
    return 'altered', 'changed after it was signed'
  if of_sidecar.status == 'missing':
    if signed_record is not None:
      return 'no sidecar', 'its content credentials are valid: the file is unchanged since signing'
    return 'no sidecar', 'nothing vouches for this file'
  # Someone may have replaced the sidecar by that of another file.
  if None not in (signed_record, written_record) and _plain(signed_record) != _plain(
    written_record
  ):
    return 'altered', 'sidecar and content credentials contradict each other'
  if of_sidecar.status == 'altered':
    return 'altered', 'not the file that was written'
  if of_sidecar.status == 'remuxed' and signed_record is not None:
    # Every other program drops the credentials when it writes the container anew. Where they are
    # still there and valid, only bytes that no signature covers can have changed.
    return 'altered', 'the signed part is intact, but bytes around it were changed'
  if of_sidecar.status == 'remuxed':
    return 'remuxed', 'same pictures and sound; their times and container are not vouched for'
  return 'verified', 'every byte is unchanged'


def _plain(record: dict) -> dict:
  """Removes what JSON cannot express, such as the difference between a tuple and a list."""
  return json.loads(json.dumps(record))


def _check_credentials(path: pathlib.Path, trust: str) -> tuple[Finding, dict | None]:
  """Checks a file; of a folder of pictures returns the worst."""
  if not path.is_dir():
    return credentials.check(path, trust)
  found = [credentials.check(p, trust) for p in sidecar.files(path) if p.suffix == '.png']
  nothing = Finding('none', 'the folder holds no pictures'), None
  return min(found, key=lambda pair: _WORST_FIRST.index(pair[0].status), default=nothing)
