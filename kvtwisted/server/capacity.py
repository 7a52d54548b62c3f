"""How much the server takes on: settings fitted to the machine, admission, and limits of connections.

Note [Turns of the interpreter]: each system call gives up the interpreter, and a computing thread, with a large scan
for example, then keeps it for a whole turn. So each recv, send and poll of the reactor would wait Python's 5 ms, and a
small request takes several of them. With short turns it waits for less. More switches cost time themselves: grpcio's
threads keep the default.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from typing import Callable

from twisted.logger import Logger

from ..backends.local.maintenance.space import fitted, lowered
from ..config.settings import LimitSettings, Settings
from ..core.disk import disk_usage
from ..core.options import EngineOptions
from ..sessions.admission import Admission
from ..sessions.connections import ADMINISTRATORS, Connections, descriptors, room, table_files

#: Seconds for which a thread may have the interpreter while others wait for it.
TURN_SECONDS = 0.0005

_log = Logger(namespace="kvtwisted")


def fitted_options(path: str, configured: EngineOptions) -> EngineOptions:
    """RocksDB's options, fitted to the disk of `path`, which must exist, and to the process's file descriptors. Lowered
    ones are logged.
    """
    options = fitted(configured, disk_usage(path).total)
    if lower := lowered(configured, options):
        _log.info("rocksdb.options lowered to what the disk can bear: {lower}", lower=json.dumps(lower))
    limit = descriptors()
    files = table_files(options.max_open_files, limit)
    if files == options.max_open_files:
        return options
    _log.info("rocksdb.options.max_open_files lowered to {files}: {limit} descriptors", files=files, limit=limit)
    return replace(options, max_open_files=files)


def make_admission(limits: LimitSettings) -> Admission:
    """What all requests enter."""
    return Admission(limits.max_in_flight, limits.max_bytes_in_flight, share=limits.max_in_flight_per_principal)


def make_connections(
    settings: Callable[[], Settings], refused: Callable[[str, str], None], *, is_open: bool
) -> Connections:
    """What counts connections; `settings` gives those in force. See `Connections` for `refused`.

    `is_open`: clients are not authenticated, so that no connections can be reserved for administrators.
    """
    now = settings()
    limit = descriptors()
    free = room(now.rocksdb.options.max_open_files, limit)
    if now.limits.max_connections > free:
        _log.warn(
            "limits.max_connections is {configured}, but of {limit} file descriptors (ulimit -n) only {free} are "
            "left for connections: without any RocksDB cannot write",
            configured=now.limits.max_connections, limit=limit, free=free,
        )  # fmt: skip
    return Connections(
        lambda: settings().limits.max_connections,
        lambda: settings().limits.max_connections_per_address,
        free,
        refused,
        administrators=0 if is_open else ADMINISTRATORS,
    )


def shorten_turns(transport: str) -> None:
    """Set how long threads keep the interpreter; see Note [Turns of the interpreter]. For the whole process."""
    if transport == "native":
        sys.setswitchinterval(TURN_SECONDS)
