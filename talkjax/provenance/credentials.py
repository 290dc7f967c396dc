"""The certificate and the private key that sign, read from the user's files and checked."""

from __future__ import annotations

import dataclasses
import datetime
import os

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from talkjax import files
from talkjax.errors import UserError

_MOST_BYTES = 1 << 20  # of a PEM file; anything larger is another kind of file
_CURVES = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}


@dataclasses.dataclass(frozen=True)
class Credentials:
    """What signs.

    Attributes:
      name: Common name of the certificate, or its whole subject.
      algorithm: C2PA's name of the signature algorithm, which the key determines.
      chain: PEM of the certificate and those above it, in this order.
      key: PEM of the private key.
      timestamp_url: RFC 3161 time-stamp authority, or None.
    """

    name: str
    algorithm: str
    chain: bytes
    key: bytes = dataclasses.field(repr=False)
    timestamp_url: str | None = None


def load(
    certificate: files.PathLike, key: files.PathLike, timestamp_url: str | None = None
) -> Credentials:
    """Reads the certificate and the key.

    Args:
      certificate: PEM file of the certificate, followed by those above it.
      key: PEM file of its private key, without a passphrase.
      timestamp_url: Address of an RFC 3161 time-stamp authority.

    Raises:
      UserError: A file cannot be read, is not what it should be, or does not fit the other one; the
        certificate is not valid today; or the address is none.
    """
    chain = _read(certificate, "c2pa_certificate")
    secret = _read(key, "c2pa_key")
    try:
        certificates = x509.load_pem_x509_certificates(chain)
    except ValueError as error:
        raise UserError(
            f"c2pa_certificate={certificate}: holds no certificate ({files.one_line(error)}); give "
            "a PEM file of the certificate, followed by those above it"
        ) from error
    own = certificates[0]
    _check_dates(certificate, own)
    private = _load_key(key, secret)
    if _public_bytes(private.public_key()) != _public_bytes(own.public_key()):
        raise UserError(
            f"c2pa_key={key}: is not the key of {certificate}; give the key that this certificate "
            "was issued for, and put this certificate first in its file"
        )
    if timestamp_url is not None and not timestamp_url.startswith(("http://", "https://")):
        raise UserError(
            f"c2pa_timestamp_url={timestamp_url}: is not an address; it must begin with http://"
        )
    # PKCS#8, because C2PA's library does not read the older formats of OpenSSL.
    pkcs8 = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pem = b"".join(each.public_bytes(serialization.Encoding.PEM) for each in certificates)
    return Credentials(_name(own), _algorithm(key, private), pem, pkcs8, timestamp_url)


def _read(path: files.PathLike, name: str) -> bytes:
    try:
        with open(path, "rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise UserError(
            f"{name}={os.fspath(path)}: cannot be read ({error.strerror}); give a PEM file"
        ) from error
    if len(content) > _MOST_BYTES:
        raise UserError(f"{name}={os.fspath(path)}: is too large for a PEM file; give another one")
    return content


def _load_key(path: files.PathLike, content: bytes):
    try:
        return serialization.load_pem_private_key(content, password=None)
    except TypeError as error:  # which is how an encrypted key is reported
        raise UserError(
            f"c2pa_key={path}: is protected by a passphrase; decrypt it with "
            "`openssl pkey -in KEY -out DECRYPTED` first"
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UserError(
            f"c2pa_key={path}: holds no private key ({files.one_line(error)}); give a PEM file "
            "that begins with a line such as -----BEGIN PRIVATE KEY-----"
        ) from error


def _check_dates(path: files.PathLike, certificate: x509.Certificate) -> None:
    now = datetime.datetime.now(datetime.UTC)
    first, last = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now > last:
        raise UserError(f"c2pa_certificate={path}: expired on {last:%Y-%m-%d}; give a valid one")
    if now < first:
        raise UserError(
            f"c2pa_certificate={path}: is valid from {first:%Y-%m-%d %H:%M} UTC on; wait until "
            "then, or check the clock"
        )


def _algorithm(path: files.PathLike, key: object) -> str:
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in _CURVES:
        return _CURVES[key.curve.name]
    if isinstance(key, rsa.RSAPrivateKey):
        return "ps256"
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return "ed25519"
    raise UserError(
        f"c2pa_key={path}: C2PA does not sign with this kind of key; use one of P-256, P-384, "
        "P-521, RSA or Ed25519"
    )


def _public_bytes(key) -> bytes:
    return key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _name(certificate: x509.Certificate) -> str:
    names = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return str(names[0].value) if names else certificate.subject.rfc4514_string()
