"""C2PA content credentials: a signed record within MP4, MOV, PNG and GIF files.

Needs the package `c2pa-python` (extra `c2pa`). Works offline: no timestamp authority and no
revocation service is contacted, so the time of a signature is only what its signer states.
"""

import dataclasses
import datetime
import functools
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from hybrid_jax import __version__
from hybrid_jax.errors import InputError
from hybrid_jax.media import reason, replacing
from hybrid_jax.provenance.sidecar import Finding

SUFFIXES = ('.mp4', '.m4v', '.mov', '.png', '.gif')
LABEL = 'hybrid_jax.provenance'
TEST = 'test'  # in place of a certificate: a chain that is generated for this process
_SOURCE_TYPES = 'http://cv.iptc.org/newscodes/digitalsourcetype/'
# Reading a file must not reveal it to a remote host, and writing must work without a network.
# A thumbnail would be one more copy of the picture.
_OFFLINE = {
  'builder': {'thumbnail': {'enabled': False}},
  'verify': {'remote_manifest_fetch': False, 'ocsp_fetch': False},
}


@dataclasses.dataclass(frozen=True)
class Signer:
  """A certificate with its private key.

  Attributes:
    chain: PEM certificates, the signer's own first. key: PEM.
    algorithm: by its name in C2PA, such as 'es256'.
  """

  chain: bytes
  key: bytes
  algorithm: str


def _library():
  # Imported on use: the package is optional, and loads a large shared library.
  try:
    import c2pa

    return c2pa
  except ImportError:
    raise InputError(
      "--certificate: needs the package c2pa-python; pip install -e '.[c2pa]'"
    ) from None


def load_signer(certificate: str, key: str) -> Signer | None:
  """Reads a certificate and its key; returns None if `certificate` is ''.

  Args:
    certificate: PEM file of the chain, or `TEST` for a generated one. key: PEM file.

  Raises:
    InputError: a file cannot be used, the two do not match, or c2pa-python is not installed.
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
    raise InputError(f'{certificate}: is not a PEM certificate ({reason(error)})') from error
  try:
    private = serialization.load_pem_private_key(secret, None)
  except (ValueError, TypeError) as error:
    raise InputError(f'{key}: is not a PEM key without a password ({reason(error)})') from error
  # Otherwise every signature would be invalid, which shows only when a file is checked.
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


# Cached so that all files of one run have the same signer. It is small and belongs to no model.
@functools.cache
def test_signer() -> Signer:
  """Generates a root and a signer below it, which no one trusts; the keys are never written."""
  from cryptography.hazmat.primitives import serialization
  from cryptography.hazmat.primitives.asymmetric import ec

  root_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
  chain = _certificate('test signer', key, 'test root', root_key, root=False)
  chain += _certificate('test root', root_key, 'test root', root_key, root=True)
  secret = key.private_bytes(
    serialization.Encoding.PEM,
    serialization.PrivateFormat.PKCS8,
    serialization.NoEncryption(),
  )
  return Signer(chain, secret, 'es256')


def _certificate(name: str, key, issuer: str, issuer_key, *, root: bool) -> bytes:
  """Returns a PEM certificate for one year, of a certificate authority if `root`."""
  from cryptography import x509
  from cryptography.hazmat.primitives import hashes, serialization
  from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

  def named(common_name: str) -> x509.Name:
    organization = 'hybrid_jax self-made test chain'
    return x509.Name(
      [
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization),
        x509.NameAttribute(NameOID.COMMON_NAME, common_name),
      ]
    )

  now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
  public, authority = key.public_key(), issuer_key.public_key()
  # Begins a day early, because clocks of other machines may be behind.
  builder = x509.CertificateBuilder(
    named(issuer), named(name), public, x509.random_serial_number(), now - day, now + 365 * day
  )
  usage = x509.KeyUsage(not root, False, False, False, False, root, root, False, False)
  above = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority)
  extensions = [
    (x509.BasicConstraints(root, None), True),
    (usage, True),
    (above, False),
    (x509.SubjectKeyIdentifier.from_public_key(public), False),
  ]
  if not root:  # C2PA rejects signers without an extended use
    extensions.append((x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), False))
  for extension, critical in extensions:
    builder = builder.add_extension(extension, critical)
  return builder.sign(issuer_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def sign(
  path: str | os.PathLike, signer: Signer, record: Mapping, *, title: str, composite: bool
) -> None:
  """Adds credentials with `record` to a file of one of `SUFFIXES`, in place.

  Args:
    title: the final name of the file.
    composite: whether parts of it were not made by a network.

  Raises:
    InputError: the library rejects the certificate or the file.
  """
  c2pa, path = _library(), pathlib.Path(path)
  # IPTC distinguishes frames that a network made entirely from those with original parts.
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
    # Signs into a new file that replaces the old one: a failure leaves the unsigned file whole.
    with (
      replacing(path) as part,
      c2pa.Signer.from_info(info) as c2pa_signer,
      c2pa.Context.from_dict(_OFFLINE) as context,
      c2pa.Builder(json.dumps(manifest), context=context) as builder,
    ):
      builder.sign_file(str(path), str(part), c2pa_signer)
  except c2pa.C2paError as error:
    raise InputError(f'{title}: cannot be signed ({reason(error)}); see --certificate') from error


def _anchors(path: str) -> str:
  """Reads a PEM file of certificates; raises InputError if it is not one."""
  from cryptography import x509

  try:
    data = pathlib.Path(path).read_bytes()
    x509.load_pem_x509_certificates(data)
  except (OSError, ValueError) as error:
    raise InputError(f'{path}: no PEM certificates can be read ({reason(error)})') from error
  return data.decode()


def check(path: str | os.PathLike, trust: str = '') -> tuple[Finding, dict | None]:
  """Reads and validates the content credentials of a file.

  Args:
    trust: PEM file of trusted certificates; '' trusts none.

  Returns:
    The finding, and the signed record, None unless the signature is valid. The status is one of
    'trusted', 'untrusted' (valid, but the signer is unknown), 'broken', 'unreadable' (the file or
    its credentials), 'none', and 'unchecked' (c2pa-python is not installed).

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
      state, store = reader.get_validation_state(), json.loads(reader.json())
  except c2pa.C2paError as error:
    if isinstance(error, c2pa.C2paError.ManifestNotFound):
      return Finding('none', 'the file holds none'), None
    return Finding('unreadable', f'cannot be read ({reason(error)})'), None
  return _judge(state, store)


def _judge(state: str, store: Mapping[str, Any]) -> tuple[Finding, dict | None]:
  """Returns the finding and record of a manifest store whose validation state is `state`."""
  codes = [status['code'] for status in store.get('validation_status', [])]
  # The record counts only from the active manifest; others describe earlier versions.
  manifest = store['manifests'].get(store.get('active_manifest'))
  if manifest is None:
    return Finding('broken', f'damaged ({", ".join(codes) or "no active manifest"})'), None
  signed = manifest.get('signature_info', {})
  signer = f'{signed.get("common_name", "nameless")} of {signed.get("issuer", "nameless")}'
  if state not in ('Valid', 'Trusted'):
    # An unknown signer is not what invalidates a file.
    wrong = [code for code in codes if code != 'signingCredential.untrusted']
    return Finding('broken', f'signed by {signer}, and changed since ({", ".join(wrong)})'), None
  record = next((a['data'] for a in manifest['assertions'] if a['label'] == LABEL), None)
  record = record if isinstance(record, dict) else None
  if state == 'Trusted':
    return Finding('trusted', f'valid, signed by {signer}; no timestamp authority'), record
  message = f'valid, signed by {signer}, which is NOT TRUSTED here; no timestamp authority'
  return Finding('untrusted', message), record
