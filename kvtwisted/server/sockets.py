"""The reactor's listening sockets: bound while the process may bind any port, listened on when it can serve.

Note [Bind first, listen later]: ports below 1024 need root (CAP_NET_BIND_SERVICE), and `twistd --uid` gives up root's
rights before it calls startService, which opens everything else, so that data and logs belong to the new user. So
sockets are bound in privilegedStartService, which twistd calls earlier. They are only bound: until the storage is open
connections are refused at once, as before the start.
"""

from __future__ import annotations

import os
import socket
from typing import Any

from twisted.internet.abstract import isIPv6Address

from ..config.settings import Settings
from ..core.errors import Unavailable
from ..rpc.listening import BACKLOG, cannot_listen, check_address, joined

HTTP, GRPC = "http", "grpc"


class Sockets:
    """Those of the transports on the reactor; grpcio binds its own. Reactor thread."""

    def __init__(self) -> None:
        self._bound: dict[str, socket.socket] = {}
        #: Who bound them: twistd may change that before they are listened on.
        self.user = os.geteuid()

    def bind(self, settings: Settings) -> None:
        """Bind those that are not bound yet. Raises Unavailable, naming host and port; then none is."""
        self.user = os.geteuid()
        try:
            if HTTP not in self._bound:
                self._bound[HTTP] = bound(HTTP, settings.http.host, settings.http.port)
            if GRPC not in self._bound and settings.grpc.transport == "native":
                self._bound[GRPC] = bound(GRPC, settings.grpc.host, settings.grpc.port)
        except BaseException:
            self.close()
            raise

    def listen(self, reactor: Any, name: str, factory: Any) -> Any:
        """Listen on the socket called `name`, which must be bound; Twisted's port. Raises OSError."""
        bound_socket = self._bound.pop(name)
        with bound_socket:  # the reactor takes a descriptor of its own
            bound_socket.listen(BACKLOG)
            return reactor.adoptStreamPort(bound_socket.fileno(), bound_socket.family, factory)

    def close(self) -> None:
        """Close the sockets that are bound and not listened on."""
        while self._bound:
            self._bound.popitem()[1].close()


def bound(name: str, host: str, port: int) -> socket.socket:
    """A socket that listens as soon as it is told to. Raises Unavailable, naming host and port."""
    if name == GRPC:
        check_address(host, port)
    family = socket.AF_INET6 if isIPv6Address(host) else socket.AF_INET
    made = None
    try:
        address = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)[0][4]
        made = socket.socket(family, socket.SOCK_STREAM)
        made.setblocking(False)
        # Connections of an earlier server that are still closing do not count.
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
    except OSError as error:
        if made is not None:
            made.close()
        raise refused(name, host, port, error) from None
    return made


def refused(name: str, host: str, port: int, error: OSError) -> Unavailable:
    """The error to raise when `name` cannot listen."""
    reason = error.strerror or str(error)
    if name == GRPC:
        return cannot_listen(host, port, reason)
    return Unavailable(f"http: cannot listen on {joined(host, port)}: {reason}")
