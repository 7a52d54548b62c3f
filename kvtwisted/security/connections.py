"""How many connections there may be, in all and from one address, on all listeners together.

Note [Room for connections]: a connection takes a file descriptor, and so do RocksDB's table files and logs. When none
is left, RocksDB cannot write, which is worse than a connection refused. So what the process may open is dealt out
before it starts: at most a quarter to table files, RESERVED to all else that the server opens, the rest to connections.
"""

from __future__ import annotations

import resource
from typing import Callable

from ..core import shares
from ..core.shares import Shares, three_quarters
from .buckets import network_of

#: Descriptors for logs, value files, sockets that listen, the reactor, connections that are just being refused.
RESERVED = 128
#: Why a connection was refused: too many in all, or from its address.
IN_ALL, PER_ADDRESS = "all", "address"


def descriptors() -> int:
    """How many files this process may have open (the soft RLIMIT_NOFILE); 2**20 where there is no limit."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 20 if soft == resource.RLIM_INFINITY else soft


def table_files(wanted: int, limit: int) -> int:
    """How many table files RocksDB may keep open when `wanted` were configured and the process may open `limit` files.

    -1 (all of them) stays -1, since RocksDB then opens what it finds.
    """
    return wanted if wanted < 0 else min(wanted, max(limit // 4, 16))


def room(wanted_files: int, limit: int) -> int:
    """How many connections there is room for beside the table files. See Note [Room for connections].

    At least a quarter of `limit`, also where that is too small for all.
    """
    files = limit // 2 if wanted_files < 0 else table_files(wanted_files, limit)
    return max(limit - files - RESERVED, limit // 4)


class Connections:
    """Counts connections in and out. Reactor thread, or any other single one; `open` may be read on any."""

    def __init__(
        self,
        max_connections: Callable[[], int],
        max_per_address: Callable[[], int],
        room: int,
        refused: Callable[[str, str], None] = lambda transport, reason: None,
    ) -> None:
        """The two limits are asked anew for each connection; 0 stands for `room`, and for three quarters of the first.

        What an address counts as is said by `buckets.network_of`. `refused` is told the transport and the reason
        (IN_ALL, PER_ADDRESS) of each refusal.
        """
        self._max_connections = max_connections
        self._max_per_address = max_per_address
        self._room = room
        self._refused = refused
        self._counts = Shares()
        #: Connections that have left, since the start.
        self.ended = 0

    @property
    def open(self) -> int:
        """Connections that have entered and not left."""
        return self._counts.open

    @property
    def limit(self) -> int:
        """Connections in all that are allowed just now."""
        return self._max_connections() or self._room

    @property
    def limit_per_address(self) -> int:
        """Connections from one address that are allowed just now."""
        return self._max_per_address() or three_quarters(self.limit)

    def enter(self, transport: str, address: str) -> str | None:
        """Count a connection in, or say why it is refused. One that is counted in must `leave`, with that address."""
        refused = self._counts.enter(network_of(address), self.limit, self.limit_per_address)
        if refused is None:
            return None
        reason = IN_ALL if refused == shares.IN_ALL else PER_ADDRESS
        self._refused(transport, reason)
        return reason

    def leave(self, address: str) -> None:
        """Count a connection out."""
        self._counts.leave(network_of(address))
        self.ended += 1
