"""TLS as the transports meet it: the factory to listen with, and what the client at the other end shows of itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Callable, cast

from twisted.internet.interfaces import ISSLTransport

from ..sessions.peer_names import Shown, shown_by, shown_by_pem
from .renewal import Certificates


def over_tls(
    reactor: Any, certificates: Certificates | None, factory: Any, too_late: Callable[[], None] = lambda: None
) -> Any:
    """What `listenTCP` is to be given: `factory` itself without certificates, else one whose connections speak TLS.

    `too_late` is called for each connection that is cut off in its handshake.
    """
    if certificates is None:
        return factory
    # Here, because OpenSSL takes its time to load and most servers do without.
    from .connections import TlsFactory

    return TlsFactory(reactor, certificates, factory, too_late)


def peer(transport: Any) -> Shown:
    """What the client at the other end of one of Twisted's transports shows.

    Reactor thread, after the handshake (from the first byte that the protocol gets) and while it is connected. There
    is only ever a certificate when a client CA is configured, and then it is verified. Ask once for each connection: it
    is parsed each time.
    """
    if not ISSLTransport.providedBy(transport) or cast(Any, transport).getHandle() is None:
        return Shown()
    certificate = cast(Any, transport).getPeerCertificate()
    return Shown() if certificate is None else shown_by(certificate.to_cryptography())


def rpc_peer(auth_context: Mapping[str, Iterable[bytes]]) -> Shown:
    """The same from `ServicerContext.auth_context()` of grpcio. Any thread; remembered by certificate."""
    certificates = tuple(auth_context.get("x509_pem_cert", ()))
    return shown_by_pem(certificates[0]) if len(certificates) == 1 else Shown()
