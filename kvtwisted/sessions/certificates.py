"""The files of one listener's certificate, its private key and its clients' authorities, read and checked.

Nothing here depends on a transport. Every refusal is an `Unavailable` that names the setting and the file.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from ..core import secret_files
from ..core.errors import Unavailable

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

#: Bytes of one file at most.
MAX_FILE_BYTES = 1_048_576
#: Bits of an RSA key at least, as OpenSSL's security level 2 asks for.
MIN_RSA_BITS = 2048
#: Kinds of keys that clients accept. BoringSSL, and so grpcio's clients, do not accept the last two.
KINDS = ("P-256", "P-384", "RSA", "P-521", "Ed25519")
_NOT_FOR_GRPCIO = KINDS[3:]

_KEY_BLOCK = re.compile(
    rb"-----BEGIN ([A-Z ]*PRIVATE KEY)-----\s.*?-----END \1-----", re.DOTALL
)  # a file may also hold its certificate
_ENCRYPTED = (b"ENCRYPTED PRIVATE KEY", b"Proc-Type: 4,ENCRYPTED")


@dataclass(frozen=True)
class CertificateFiles:
    """The paths that the section `listener` (`grpc` or `http`) of the configuration has; all PEM.

    Without `certificate` the listener has no TLS; without `client_ca` it asks clients for no certificate.
    """

    listener: str
    certificate: str = ""
    private_key: str = ""
    client_ca: str = ""

    def setting(self, name: str) -> str:
        """The configuration key of one of them: `grpc.tls_certificate` for `certificate`."""
        return f"{self.listener}.tls_{name}"

    def refused(self, name: str, sentence: str) -> Unavailable:
        """The error to raise when one of them cannot be used."""
        return Unavailable(f"{self.setting(name)}: {getattr(self, name)}{sentence}")

    def signature(self) -> tuple[object, ...]:
        """Changes when one of the files does: rewritten, replaced, or a link to it changed. Blocks."""
        return tuple(_signature(path) for path in (self.certificate, self.private_key, self.client_ca) if path)


@dataclass(frozen=True)
class Identity:
    """A checked certificate with its chain and key, and the authorities of clients' certificates; all PEM."""

    files: CertificateFiles
    chain: bytes
    private_key: bytes
    #: Empty: clients are asked for no certificate.
    client_ca: bytes
    #: Seconds since 1970 from which, and up to which, the certificate is valid.
    not_before: float
    not_after: float
    #: What an operator should change, although it works.
    warnings: tuple[str, ...] = ()


def read_identity(files: CertificateFiles) -> Identity:
    """Read and check them, but not whether the certificate is valid now. Blocks.

    Raises Unavailable, naming the setting and the file: missing, unreadable or too large; without a certificate or key
    in it; a key with a passphrase, too short, of a kind that no client accepts, or of another certificate; an authority
    that is not one.
    """
    chain = _certificates(files, "certificate")
    key_block, warnings = _read_key(files)
    key = _load_key(files, key_block)
    _check_key(files, key, chain[0])
    if files.listener == "grpc" and (kind := _kind(key)) in _NOT_FOR_GRPCIO:
        sentence = f"{files.private_key} is an {kind} key" if kind == "Ed25519" else f"{files.private_key} is on {kind}"
        warnings += (f"{files.setting('private_key')}: {sentence}, which grpcio's clients do not take",)
    client_ca: list[Certificate] = []
    if files.client_ca:
        client_ca = _certificates(files, "client_ca")
        for certificate in client_ca:
            _check_authority(files, certificate)
    return Identity(
        files, _pem(chain), key_block, _pem(client_ca),
        chain[0].not_valid_before_utc.timestamp(), chain[0].not_valid_after_utc.timestamp(), warnings,
    )  # fmt: skip


def moment(seconds: float) -> str:
    """A time in UTC as messages show it."""
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")


def _signature(path: str) -> tuple[int, ...] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _read(files: CertificateFiles, name: str) -> bytes:
    """The content of a file. Only a regular file is opened: opening a pipe would wait."""
    path = getattr(files, name)
    try:
        # Even if a pipe replaced it right now, the open would not wait.
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise files.refused(name, ": is not a file")
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        raise files.refused(name, f": {getattr(error, 'strerror', None) or error}") from None
    if len(content) > MAX_FILE_BYTES:
        raise files.refused(name, f" has more than {MAX_FILE_BYTES} bytes")
    return content


def _certificates(files: CertificateFiles, name: str) -> list[Certificate]:
    from cryptography.x509 import load_pem_x509_certificates

    content = _read(files, name)
    try:
        found = load_pem_x509_certificates(content)
        for certificate in found:
            certificate.public_key()
    except Exception:
        # More than ValueError: cryptography lets errors of its parser through that have no common class.
        if b"-----BEGIN CERTIFICATE-----" in content:
            raise files.refused(name, " has a certificate in it that cannot be read") from None
        raise files.refused(name, " has no certificate in it") from None
    return found


def _read_key(files: CertificateFiles) -> tuple[bytes, tuple[str, ...]]:
    content = _read(files, "private_key")
    found = _KEY_BLOCK.search(content)
    if found is None:
        raise files.refused("private_key", " has no private key in it")
    warnings: tuple[str, ...] = ()
    fault = secret_files.fault(files.private_key)
    if fault is not None:
        warnings = (f"{files.setting('private_key')}: {files.private_key}: {fault}",)
    return found[0] + b"\n", warnings


def _load_key(files: CertificateFiles, block: bytes) -> Any:
    """Of cryptography's many classes of keys."""
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    if any(word in block for word in _ENCRYPTED):
        raise files.refused("private_key", " has a passphrase, which nobody could be asked for")
    try:
        return load_pem_private_key(block, None)
    except Exception:  # see _certificates
        raise files.refused("private_key", " has a private key in it that cannot be read") from None


def _check_key(files: CertificateFiles, key: Any, certificate: Certificate) -> None:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    kind = _kind(key)
    if kind not in KINDS:
        raise files.refused("private_key", f" is of a kind that TLS clients do not take; good ones: {', '.join(KINDS)}")
    if kind == "RSA" and key.key_size < MIN_RSA_BITS:
        sentence = f" is too weak: {key.key_size} bits, and at least {MIN_RSA_BITS} are needed"
        raise files.refused("private_key", sentence)
    mine, theirs = (
        public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        for public in (key.public_key(), certificate.public_key())
    )
    if mine != theirs:
        raise files.refused("private_key", f" is not the key of the first certificate in {files.certificate}")


def _kind(key: Any) -> str:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if isinstance(key, rsa.RSAPrivateKey):
        return "RSA"
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return "Ed25519"
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}.get(key.curve.name, key.curve.name)
    return type(key).__name__


def _check_authority(files: CertificateFiles, certificate: Certificate) -> None:
    """A certificate that is marked as not an authority's would let in only its own owner: not what is meant."""
    from cryptography.x509 import BasicConstraints, ExtensionNotFound

    try:
        is_authority = certificate.extensions.get_extension_for_class(BasicConstraints).value.ca
    except ExtensionNotFound:
        return  # as old roots are
    except Exception:  # see _certificates
        raise files.refused("client_ca", " has a certificate in it that cannot be read") from None
    if not is_authority:
        raise files.refused(
            "client_ca", f" has a certificate in it that is not an authority's: {certificate.subject.rfc4514_string()}"
        )


def _pem(certificates: list[Certificate]) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates)
