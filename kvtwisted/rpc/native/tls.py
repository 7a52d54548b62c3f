"""TLS for gRPC: version 1.2 or newer, and HTTP/2 by ALPN (RFC 9113, section 3.2 and 9.2)."""

from __future__ import annotations

from typing import Any

from ...core.errors import Unavailable
from ..pem import read_pair


def server_context(certificate: str, private_key: str) -> Any:
    """A context factory for `listenSSL`, of PEM files: the certificate with its chain, and its key.

    Raises Unavailable, naming the file, when one cannot be used.
    """
    # Here, because OpenSSL takes its time to load and most servers do without.
    from OpenSSL import SSL, crypto
    from twisted.internet import ssl

    chain, key = read_pair(certificate, private_key)
    try:
        certificates = [
            crypto.load_certificate(crypto.FILETYPE_PEM, b"-----BEGIN CERTIFICATE-----" + part)
            for part in chain.split(b"-----BEGIN CERTIFICATE-----")[1:]
        ]
        options = ssl.CertificateOptions(
            privateKey=crypto.load_privatekey(crypto.FILETYPE_PEM, key),
            certificate=certificates[0],
            extraCertChain=certificates[1:],
            raiseMinimumTo=ssl.TLSVersion.TLSv1_2,
            acceptableProtocols=[b"h2"],
        )
        options.getContext()
    except (crypto.Error, SSL.Error) as error:
        # `read_pair` has tried the pair with Python's own OpenSSL; this is another one, and may take less.
        reason = error.args[0][0][2] if error.args and error.args[0] else "not PEM"
        raise Unavailable(f"grpc.tls_certificate and grpc.tls_private_key do not make a pair: {reason}") from None
    return options
