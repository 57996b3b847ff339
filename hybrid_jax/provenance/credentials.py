"""C2PA content credentials: a signed record within MP4, MOV, PNG and GIF files.

Needs the package `c2pa-python` (extra `c2pa`). No timestamp authority, no revocation service and no
other host is asked: a signature is of the time that its signer states.
"""

import dataclasses
import datetime
import functools
import json
import os
import pathlib
from collections.abc import Mapping

from hybrid_jax import __version__
from hybrid_jax.errors import InputError
from hybrid_jax.media import reason, replacing
from hybrid_jax.provenance.sidecar import Finding

SUFFIXES = ('.mp4', '.m4v', '.mov', '.png', '.gif')
LABEL = 'hybrid_jax.provenance'
TEST = 'test'  # in place of a certificate: a chain made for this run
_SOURCE_TYPES = 'http://cv.iptc.org/newscodes/digitalsourcetype/'
_OFFLINE = {
  'builder': {'thumbnail': {'enabled': False}},
  'verify': {'remote_manifest_fetch': False, 'ocsp_fetch': False},
}


@dataclasses.dataclass(frozen=True)
class Signer:
  """A certificate chain, the signer's own first, and its key, both PEM; `algorithm` as C2PA calls
  it."""

  chain: bytes
  key: bytes
  algorithm: str


def _library():
  try:
    import c2pa

    return c2pa
  except ImportError:
    raise InputError(
      "--certificate: needs the package c2pa-python; pip install -e '.[c2pa]'"
    ) from None


def open_signer(certificate: str, key: str) -> Signer | None:
  """Of a PEM chain and its PEM key, `TEST` for a chain made here, '' for none.

  Raises:
    InputError: a file is missing or is none, the two do not belong together, or no package.
  """
  if not certificate:
    if key:
      raise InputError('--key: needs --certificate')
    return None
  _library()
  if certificate == TEST:
    return test_signer()
  from cryptography import x509
  from cryptography.hazmat.primitives import serialization

  if not key:
    raise InputError(f'--certificate={certificate}: needs --key, its private key (PEM)')
  try:
    chain, secret = pathlib.Path(certificate).read_bytes(), pathlib.Path(key).read_bytes()
  except OSError as error:
    raise InputError(f'{error.filename}: cannot be read ({reason(error)})') from error
  try:
    leaf = x509.load_pem_x509_certificates(chain)[0]
  except ValueError as error:
    raise InputError(f'{certificate}: is no PEM certificate ({reason(error)})') from error
  try:
    private = serialization.load_pem_private_key(secret, None)
  except (ValueError, TypeError) as error:
    raise InputError(f'{key}: is no PEM key without a password ({reason(error)})') from error
  if private.public_key() != leaf.public_key():
    raise InputError(f'{key}: is not the key of the first certificate in {certificate}')
  return Signer(chain, secret, _algorithm(private, key))


def _algorithm(private, key: str) -> str:
  from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

  if isinstance(private, ed25519.Ed25519PrivateKey):
    return 'ed25519'
  if isinstance(private, rsa.RSAPrivateKey):
    return 'ps256'
  if isinstance(private, ec.EllipticCurvePrivateKey) and private.key_size in (256, 384, 521):
    return {256: 'es256', 384: 'es384', 521: 'es512'}[private.key_size]
  raise InputError(f'{key}: C2PA signs with P-256, P-384, P-521, RSA or Ed25519 keys')


@functools.cache
def test_signer() -> Signer:
  """A root and a signer below it, made now and trusted by nobody; the keys are kept nowhere."""
  from cryptography import x509
  from cryptography.hazmat.primitives import hashes, serialization
  from cryptography.hazmat.primitives.asymmetric import ec
  from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

  now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)

  def certificate(name, key, issuer, issuer_key, root):
    called = [
      x509.Name(
        [
          x509.NameAttribute(NameOID.ORGANIZATION_NAME, 'hybrid_jax self-made test chain'),
          x509.NameAttribute(NameOID.COMMON_NAME, text),
        ]
      )
      for text in (name, issuer)
    ]
    made = x509.CertificateBuilder(
      *called[::-1], key.public_key(), x509.random_serial_number(), now - day, now + 365 * day
    )
    usage = x509.KeyUsage(not root, False, False, False, False, root, root, False, False)
    made = made.add_extension(x509.BasicConstraints(root, None), True).add_extension(usage, True)
    above = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
    made = made.add_extension(above, False)
    made = made.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
    if not root:
      mail = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])  # C2PA asks for a use
      made = made.add_extension(mail, False)
    pem = made.sign(issuer_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    return pem

  root_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
  chain = certificate('test signer', key, 'test root', root_key, False)
  chain += certificate('test root', root_key, 'test root', root_key, True)
  secret = key.private_bytes(
    serialization.Encoding.PEM,
    serialization.PrivateFormat.PKCS8,
    serialization.NoEncryption(),
  )
  return Signer(chain, secret, 'es256')


def sign(
  path: str | os.PathLike, signer: Signer, record: Mapping, *, title: str, composite: bool
) -> None:
  """Puts credentials with `record` into a file of `SUFFIXES`, in place.

  Args:
    title: what the file will be called.
    composite: whether parts of it were not made by a network.

  Raises:
    InputError: the certificate or the file is not taken.
  """
  c2pa, path = _library(), pathlib.Path(path)
  kind = 'compositeWithTrainedAlgorithmicMedia' if composite else 'trainedAlgorithmicMedia'
  agent = {'name': 'hybrid_jax', 'version': __version__}
  action = {
    'action': 'c2pa.created',
    'digitalSourceType': _SOURCE_TYPES + kind,
    'softwareAgent': agent,
  }
  manifest = {
    'claim_generator_info': [agent],
    'title': title,
    'assertions': [
      {'label': 'c2pa.actions.v2', 'data': {'actions': [action]}},
      {'label': LABEL, 'data': record},
    ],
  }
  info = c2pa.C2paSignerInfo(signer.algorithm, signer.chain, signer.key, None)
  try:
    with (
      replacing(path) as part,
      c2pa.Signer.from_info(info) as pen,
      c2pa.Context.from_dict(_OFFLINE) as context,
      c2pa.Builder(json.dumps(manifest), context=context) as builder,
    ):
      builder.sign_file(str(path), str(part), pen)
  except c2pa.C2paError as error:
    raise InputError(f'{title}: cannot be signed ({reason(error)}); see --certificate') from error


def _anchors(path: str) -> str:
  """A PEM file of certificates. Raises InputError where it is none."""
  from cryptography import x509  # of the same extra as c2pa

  try:
    data = pathlib.Path(path).read_bytes()
    x509.load_pem_x509_certificates(data)
  except (OSError, ValueError) as error:
    raise InputError(f'{path}: no certificates in PEM can be read ({reason(error)})') from error
  return data.decode()


def check(path: str | os.PathLike, trust: str = '') -> tuple[Finding, dict | None]:
  """Reads the credentials of a file.

  Args:
    trust: PEM file of certificates that are trusted; '' trusts none.

  Returns:
    ('trusted', 'untrusted' (valid, of an unknown signer), 'broken', 'unreadable' (the file, or what
    it holds of them), 'none' or 'unchecked' (no package), and the record that was signed, None
    unless it is valid).

  Raises:
    InputError: `trust` cannot be read.
  """
  if pathlib.Path(path).suffix.lower() not in SUFFIXES:
    return Finding('none', 'files of this kind hold none'), None
  try:
    c2pa = _library()
  except InputError:
    return Finding('unchecked', 'c2pa-python is not installed'), None
  settings = dict(_OFFLINE)
  if trust:
    settings['trust'] = {'trust_anchors': _anchors(trust)}
  try:
    with (
      c2pa.Context.from_dict(settings) as context,
      c2pa.Reader(str(path), context=context) as reader,
    ):
      state, found = reader.get_validation_state(), json.loads(reader.json())
  except c2pa.C2paError as error:
    if isinstance(error, c2pa.C2paError.ManifestNotFound):
      return Finding('none', 'the file holds none'), None
    return Finding('unreadable', f'cannot be read ({reason(error)})'), None
  codes = [status['code'] for status in found.get('validation_status', [])]
  manifest = found['manifests'].get(found.get('active_manifest'))
  if manifest is None:
    return Finding('broken', f'damaged ({", ".join(codes) or "no active manifest"})'), None
  signed = manifest.get('signature_info', {})
  by = f'{signed.get("common_name", "nameless")} of {signed.get("issuer", "nameless")}'
  if state not in ('Valid', 'Trusted'):
    wrong = [code for code in codes if code != 'signingCredential.untrusted']
    return Finding('broken', f'signed by {by}, and changed since ({", ".join(wrong)})'), None
  record = next((a['data'] for a in manifest['assertions'] if a['label'] == LABEL), None)
  record = record if isinstance(record, dict) else None
  if state == 'Trusted':
    return Finding('trusted', f'valid, signed by {by}; no timestamp authority'), record
  told = f'valid, signed by {by}, which is NOT TRUSTED here; no timestamp authority'
  return Finding('untrusted', told), record
