"""Who the client is: the name in its verified certificate, on either transport. See `sessions.peer_names`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

from twisted.internet.interfaces import ISSLTransport

from ..sessions.peer_names import Shown, shown_by, shown_by_pem


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
