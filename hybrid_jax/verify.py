"""Says whether a re-enacted file is still what was written, and what it was made of.

  python -m hybrid_jax.verify out.mp4
  python -m hybrid_jax.verify renamed.mkv --sidecar out.mp4.json --trust roots.pem

Two checks, each with a verdict of its own: the sidecar (OUTPUT.json) and, where the file holds
them, content credentials (C2PA). Exit codes:

  0  verified: every byte is as it was written
  1  the question cannot be answered: no such file, no sidecar of ours
  3  altered: what the file shows or what was signed is not what was written
  4  remuxed: same pictures and sound in another container; credentials do not survive it
  5  no sidecar: only credentials can tell, if the file holds any
"""

import argparse
import json
import pathlib
import sys
from collections.abc import Iterator

from hybrid_jax.errors import InputError
from hybrid_jax.provenance import credentials, sidecar
from hybrid_jax.provenance.sidecar import Finding

CODES = {'verified': 0, 'altered': 3, 'remuxed': 4, 'no sidecar': 5}


def verify(path: str, where: str = '', trust: str = '') -> tuple[str, list[str]]:
  """(a key of `CODES`, lines for people) of a file or folder of pictures.

  Args:
    where: the sidecar; '' is beside the file. trust: as of `credentials.check`.

  Raises:
    InputError: no such file, a sidecar that is none, `trust` cannot be read.
  """
  if not pathlib.Path(path).exists():
    raise InputError(f'{path}: no such file')
  place = where or sidecar.place(path)
  written = sidecar.read(place)
  if where and written is None:
    raise InputError(f'{where}: no such file')
  signed, record = _credentials(pathlib.Path(path), trust)
  if written is None:
    beside = Finding('missing', f'{place} is not there')
  else:
    beside = sidecar.compare(path, written)
  verdict, why = judge(beside, signed, written and written['record'], record)
  told = [
    f'sidecar      {beside.is_}: {beside.told}',
    f'credentials  {signed.is_}: {signed.told}',
    f'verdict      {verdict.upper()}: {why}',
  ]
  made = record or (written and written['record'])
  return verdict, told + list(_made(made) if made else ())


def judge(
  beside: Finding, signed: Finding, written: dict | None, record: dict | None
) -> tuple[str, str]:
  """The verdict of both findings and of both records (None where there is none)."""
  if signed.is_ == 'broken':
    return 'altered', 'changed after it was signed'
  if beside.is_ == 'missing':
    if record is not None:
      return 'no sidecar', 'its content credentials are valid: the file is as it was signed'
    return 'no sidecar', 'nothing vouches for this file'
  if record is not None and written is not None and _plain(record) != _plain(written):
    return 'altered', 'sidecar and content credentials tell different stories'
  if beside.is_ == 'altered':
    return 'altered', 'not the file that was written'
  if beside.is_ == 'remuxed' and record is not None:  # no other program keeps what is signed
    return 'altered', 'what was signed is whole, and bytes around it were changed'
  if beside.is_ == 'remuxed':
    return 'remuxed', 'same pictures and sound; their times and their container are not vouched for'
  return 'verified', 'every byte is as it was written'


def _plain(record: dict) -> dict:
  return json.loads(json.dumps(record))


def _credentials(path: pathlib.Path, trust: str) -> tuple[Finding, dict | None]:
  """Of a file; of a folder those of its pictures, the worst first."""
  if not path.is_dir():
    return credentials.check(path, trust)
  found = [credentials.check(p, trust) for p in sidecar.files(path) if p.suffix == '.png']
  order = ('broken', 'unreadable', 'unchecked', 'none', 'untrusted', 'trusted')
  nothing = Finding('none', 'the folder holds no pictures'), None
  return min(found, key=lambda pair: order.index(pair[0].is_), default=nothing)


def _made(record: dict) -> Iterator[str]:
  yield f'made         {record.get("made", "")} (hybrid_jax {record.get("hybrid_jax", "?")})'
  for of in ('source', 'driving'):
    file = record.get(of)
    file = file if isinstance(file, dict) else {}
    yield f'{of:<13}{file.get("name")}, SHA-256 {file.get("sha256")}'


def main() -> None:
  parser = argparse.ArgumentParser(
    prog='python -m hybrid_jax.verify',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('file', help='a result, or a folder of PNG files')
  parser.add_argument('--sidecar', default='', help='its sidecar (FILE.json)')
  parser.add_argument('--trust', default='', help='PEM file of certificates to trust (none)')
  args = parser.parse_args()
  try:
    verdict, told = verify(args.file, args.sidecar, args.trust)
  except InputError as error:
    sys.exit(f'error: {error}')
  print('\n'.join(told))
  sys.exit(CODES[verdict])


if __name__ == '__main__':
  main()
