"""TLS for gRPC: version 1.2 or newer, and HTTP/2 by ALPN (RFC 9113, section 3.2 and 9.2)."""

from __future__ import annotations

from typing import Any

from twisted.internet.protocol import Factory

from ...core.errors import Unavailable
from ..pem import read_pair


def over_tls(reactor: Any, factory: Factory, certificate: str, private_key: str) -> Any:
    """A factory for `listenTCP` that serves TLS with what is in PEM files: the certificate with its chain, and its key.

    Raises Unavailable, naming the setting and the file, when one cannot be used.
    """
    # Here, because OpenSSL takes its time to load and most servers do without.
    from OpenSSL import SSL
    from twisted.internet import ssl
    from twisted.protocols.tls import TLSMemoryBIOFactory

    read_pair(certificate, private_key)
    options = ssl.CertificateOptions(raiseMinimumTo=ssl.TLSVersion.TLSv1_2, acceptableProtocols=[b"h2"])
    context = options.getContext()
    try:
        context.use_certificate_chain_file(certificate)
        context.use_privatekey_file(private_key)
    except SSL.Error as error:
        # `read_pair` has tried the pair with Python's own OpenSSL; this is another one, and may take less.
        reason = error.args[0][0][2] if error.args and error.args[0] else "not PEM"
        raise Unavailable(f"grpc.tls_certificate and grpc.tls_private_key do not make a pair: {reason}") from None

    class RefusingFactory(TLSMemoryBIOFactory):
        """Refuses a connection that the inner factory refuses; Twisted's own fails, and leaves it open for ever."""

        def buildProtocol(self, addr: Any) -> Any:
            inner = factory.buildProtocol(addr)
            return None if inner is None else self.protocol(self, inner)

    # `listenSSL` would let small writes wait for the global reactor's next turn, whichever one this is.
    return RefusingFactory(options, False, factory, clock=reactor)
