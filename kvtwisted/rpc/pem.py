"""The files of a server's certificate and private key."""

from __future__ import annotations

from ..core.errors import Unavailable


def read_pair(certificate: str, private_key: str) -> tuple[bytes, bytes]:
    """The contents of both files, PEM. Raises Unavailable, naming the setting and the file, when one cannot be read."""
    return _read("grpc.tls_certificate", certificate), _read("grpc.tls_private_key", private_key)


def _read(name: str, path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise Unavailable(f"{name}: {path}: {error.strerror}") from None
