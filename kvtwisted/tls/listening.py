"""A listener's factory, with TLS or without."""

from __future__ import annotations

from typing import Any

from .renewal import Certificates


def over_tls(reactor: Any, certificates: Certificates | None, factory: Any) -> Any:
    """What `listenTCP` is to be given: `factory` itself without certificates, else one whose connections speak TLS."""
    if certificates is None:
        return factory
    # Here, because OpenSSL takes its time to load and most servers do without.
    from .connections import TlsFactory

    return TlsFactory(reactor, certificates, factory)
