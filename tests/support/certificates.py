"""Certificates for tests, signed by themselves."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from ipaddress import IPv4Address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_PEM = serialization.Encoding.PEM


class Pair:
    """A certificate for localhost and 127.0.0.1 and its private key, as PEM files in a folder."""

    def __init__(self, folder: Path, name: str = "server", passphrase: bytes = b"") -> None:
        """Make both; with `passphrase` the key's file needs it."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
        names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(IPv4Address("127.0.0.1"))])
        now = datetime.now(timezone.utc)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(names, critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(key, hashes.SHA256())
        )
        encryption: serialization.KeySerializationEncryption = (
            serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
        )
        #: The certificate, PEM.
        self.chain = certificate.public_bytes(_PEM)
        #: The paths of both files.
        self.certificate, self.private_key = str(folder / f"{name}.pem"), str(folder / f"{name}-key.pem")
        Path(self.certificate).write_bytes(self.chain)
        Path(self.private_key).write_bytes(
            key.private_bytes(_PEM, serialization.PrivateFormat.TraditionalOpenSSL, encryption)
        )
