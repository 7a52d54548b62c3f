"""Who has called: the name in a client's verified certificate, on either transport. See `security.peer_names`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

from twisted.internet.interfaces import ISSLTransport

from ..security.peer_names import name_of, name_of_pem


def peer_name(transport: Any) -> str | None:
    """The name of the client at the other end of one of Twisted's transports; None: no TLS, no certificate, no name.

    Reactor thread, after the handshake (from the first byte that the protocol gets) and while it is connected. There
    is only ever a certificate when a client CA is configured, and then it is verified. Ask once for each connection: it
    is parsed each time.
    """
    if not ISSLTransport.providedBy(transport) or cast(Any, transport).getHandle() is None:
        return None
    certificate = cast(Any, transport).getPeerCertificate()
    return None if certificate is None else name_of(certificate.to_cryptography())


def rpc_peer_name(auth_context: Mapping[str, Iterable[bytes]]) -> str | None:
    """The same from `ServicerContext.auth_context()` of grpcio. Any thread; remembered by certificate."""
    certificates = tuple(auth_context.get("x509_pem_cert", ()))
    return name_of_pem(certificates[0]) if len(certificates) == 1 else None
