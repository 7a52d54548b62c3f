"""Giving bytes to the kernel without waiting for the reactor to say that it takes them.

Note [Send without asking the poller]: Twisted's transports write when the poller reports the socket writable: two
system calls to ask and to stop asking, and another round of the reactor, for an answer that the kernel nearly always
takes at once. So it is offered first, as much as such a transport would write at once; what the kernel does not take
goes the usual way. asyncio does the same.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.tcp import Connection


def send_now(transport: Any, data: bytes) -> None:
    """Like `transport.write`, for any transport; one on TCP that has nothing waiting sends at once."""
    if (
        isinstance(transport, Connection)
        and not transport.dataBuffer
        and not transport._tempDataBuffer
        and transport.connected
        and not transport.disconnecting
        and not transport._writeDisconnecting
        and not transport.TLS
    ):
        limit = transport.SEND_LIMIT
        try:
            sent = transport.socket.send(data if len(data) <= limit else memoryview(data)[:limit])
        except OSError:
            # An error is left to the usual way, which meets it again and closes the connection.
            sent = 0
        if sent == len(data):
            return
        data = data[sent:]
    transport.write(data)
