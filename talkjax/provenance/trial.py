"""A certificate for trials, which nobody but its owner trusts."""

from __future__ import annotations

import datetime
import os

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from talkjax import files
from talkjax.errors import UserError

CERTIFICATE, KEY, ANCHOR = "certificate.pem", "key.pem", "anchor.pem"
_ORGANIZATION = "talkjax trial, not to be trusted"
_PURPOSE = x509.ExtendedKeyUsageOID.EMAIL_PROTECTION  # which all versions of C2PA's tools accept
_USES = (
    "digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
    "key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
)  # fmt: skip


def make(folder: files.PathLike, days: int = 365) -> None:
    """Writes a certificate, its private key, and the certificate above it.

    C2PA does not accept a certificate that signs itself, so the one here is issued by an authority
    that was made for it alone, and whose own key is thrown away.

    Args:
      folder: Receives `certificate.pem` (the whole chain), `key.pem` (which only the user may
        read) and `anchor.pem` (the authority, for `--trust_anchors`).
      days: How long the certificate is valid.

    Raises:
      UserError: One of the files exists, or cannot be written.
    """
    folder = os.fspath(folder)
    for name in (CERTIFICATE, KEY, ANCHOR):
        if os.path.lexists(os.path.join(folder, name)):
            raise UserError(f"{os.path.join(folder, name)}: exists; give another folder")
    # A minute ago, because the clocks of other machines differ.
    first = datetime.datetime.now(datetime.UTC) - datetime.timedelta(minutes=1)
    last = first + datetime.timedelta(days=days)
    authority, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    issuer = _name("talkjax trial authority")
    anchor = (
        _begin(issuer, issuer, authority.public_key(), first, last)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage("key_cert_sign", "crl_sign"), critical=True)
        .sign(authority, hashes.SHA256())
    )
    own = (
        _begin(_name("talkjax trial certificate"), issuer, key.public_key(), first, last)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage("digital_signature"), critical=True)
        .add_extension(x509.ExtendedKeyUsage([_PURPOSE]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()),
            critical=False,
        )
        .sign(authority, hashes.SHA256())
    )
    chain = [each.public_bytes(serialization.Encoding.PEM) for each in (own, anchor)]
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    try:
        os.makedirs(folder, exist_ok=True)
        # Never wider than this, not even for a moment.
        descriptor = os.open(os.path.join(folder, KEY), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "wb") as file:
            file.write(secret)
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be written ({error.strerror}); choose another place"
        ) from error
    files.write_bytes(os.path.join(folder, CERTIFICATE), b"".join(chain))
    files.write_bytes(os.path.join(folder, ANCHOR), chain[1])


def _begin(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    first: datetime.datetime,
    last: datetime.datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(first)
        .not_valid_after(last)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _name(common: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, _ORGANIZATION),
            x509.NameAttribute(x509.NameOID.COMMON_NAME, common),
        ]
    )


def _key_usage(*uses: str) -> x509.KeyUsage:
    return x509.KeyUsage(**{use: use in uses for use in _USES})
