"""A listener's factory, with TLS or without."""

from __future__ import annotations

from typing import Any, Callable

from .renewal import Certificates


def over_tls(
    reactor: Any, certificates: Certificates | None, factory: Any, too_late: Callable[[], None] = lambda: None
) -> Any:
    """What `listenTCP` is to be given: `factory` itself without certificates, else one whose connections speak TLS.

    `too_late` is called for each whose handshake is cut off.
    """
    if certificates is None:
        return factory
    # Here, because OpenSSL takes its time to load and most servers do without.
    from .connections import TlsFactory

    return TlsFactory(reactor, certificates, factory, too_late)
