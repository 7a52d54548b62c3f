"""The files of a server's certificate and private key, looked at before any transport is given them."""

from __future__ import annotations

from ..core.errors import Unavailable

_CERTIFICATE, _PRIVATE_KEY = "grpc.tls_certificate", "grpc.tls_private_key"


def read_pair(certificate: str, private_key: str) -> tuple[bytes, bytes]:
    """The contents of both files, PEM. Raises Unavailable, naming the setting and the file, when they are no pair."""
    chain, key = _read(_CERTIFICATE, certificate), _read(_PRIVATE_KEY, private_key)
    # Here, because OpenSSL takes its time to load and most servers do without. grpcio would say nothing of the cause.
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_verify_locations(cadata=chain.decode("ascii", "ignore"))
    except (ssl.SSLError, ValueError):
        raise Unavailable(f"{_CERTIFICATE}: {certificate} has no certificate in it") from None
    try:
        # With a passphrase given, OpenSSL does not ask for one on the terminal.
        context.load_cert_chain(certificate, private_key, password=b"")
    except ssl.SSLError:
        sentence = f"{private_key} is not the key of {_CERTIFICATE}, or has a passphrase, or is too weak"
        raise Unavailable(f"{_PRIVATE_KEY}: {sentence}") from None
    return chain, key


def _read(name: str, path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise Unavailable(f"{name}: {path}: {error.strerror}") from None
