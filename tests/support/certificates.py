"""Certificates for tests: signed by themselves, or by an authority of the test's own."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519
from cryptography.x509.oid import NameOID

_PEM = serialization.Encoding.PEM
#: What a server's certificate for this machine names.
LOCALHOST = (x509.DNSName("localhost"), x509.IPAddress(IPv4Address("127.0.0.1")))


class Pair:
    """A certificate and its private key, as PEM files in a folder; by default for localhost and 127.0.0.1."""

    def __init__(
        self,
        folder: Path,
        name: str = "server",
        passphrase: bytes = b"",
        *,
        key: Any = None,
        common_names: Sequence[str] = ("localhost",),
        names: Sequence[x509.GeneralName] = LOCALHOST,
        authority: bool = True,
        issuer: Pair | None = None,
        days: tuple[float, float] = (-1, 1),
    ) -> None:
        """Make both; with `passphrase` the key's file needs it. Valid for `days` from now; signed by `issuer`."""
        self.key = ec.generate_private_key(ec.SECP256R1()) if key is None else key
        signer = self.key if issuer is None else issuer.key
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common) for common in common_names])
        now = datetime.now(timezone.utc)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject if issuer is None else issuer.x509.subject)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + timedelta(days=days[0]))
            .not_valid_after(now + timedelta(days=days[1]))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            # What strict verifiers want besides (RFC 5280, sections 4.2.1.1 to 4.2.1.3).
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
            .add_extension(_usage(authority), critical=True)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(list(names)), critical=False)
        hashed = None if isinstance(signer, (ed25519.Ed25519PrivateKey, ed448.Ed448PrivateKey)) else hashes.SHA256()
        self.x509 = builder.sign(signer, hashed)
        encryption: serialization.KeySerializationEncryption = (
            serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
        )
        #: The certificate, PEM, and the key.
        self.chain = self.x509.public_bytes(_PEM)
        form = serialization.PrivateFormat.TraditionalOpenSSL
        if hashed is None or isinstance(self.key, (ed25519.Ed25519PrivateKey, ed448.Ed448PrivateKey)):
            form = serialization.PrivateFormat.PKCS8
        self.key_pem = self.key.private_bytes(_PEM, form, encryption)
        #: The paths of both files.
        self.certificate, self.private_key = str(folder / f"{name}.pem"), str(folder / f"{name}-key.pem")
        Path(self.certificate).write_bytes(self.chain)
        Path(self.private_key).write_bytes(self.key_pem)
        Path(self.private_key).chmod(0o600)


def _usage(authority: bool) -> x509.KeyUsage:
    """Signatures in handshakes; for an authority those of certificates too."""
    others = dict.fromkeys(("content_commitment", "key_encipherment", "data_encipherment", "key_agreement"), False)
    return x509.KeyUsage(
        digital_signature=True, key_cert_sign=authority, crl_sign=authority, encipher_only=False, decipher_only=False,
        **others,
    )  # fmt: skip


def authority(folder: Path, name: str = "authority") -> Pair:
    """One that signs others: `Pair(..., issuer=authority(...))`."""
    return Pair(folder, name, common_names=(f"the {name}",), names=())
