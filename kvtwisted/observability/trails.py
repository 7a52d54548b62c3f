"""The audit and access trails, and which file each goes to: audit.log, writes.log, access.log."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Callable

from ..config.settings import Settings
from ..sessions import audit
from ..sessions.audit import Audit, Auditing, Floods
from .log_writer import LinesLost, LogWriter, LogWriters

#: Changes of the configuration, operators' calls and batches of eviction that have a line each at once.
_CHANGES_BURST = 100


class Trails:
    """Open from `open` to `close`. Lines are dropped if the settings name no folder, or turn a trail off."""

    def __init__(self, settings: Settings, writers: LogWriters) -> None:
        self._settings = settings
        self._writers = writers
        #: Who changed what, and who was turned away.
        self.audit: Auditing = Audit(_forget)
        #: The same for events that clients can cause without a limit.
        self.evictions, self._changes, self._refusals = Floods(self.audit), Floods(self.audit), Floods(self.audit)
        #: Each write, where that is asked for.
        self.writes: Auditing = Audit(_forget)
        #: Takes a line for each HTTP request, where that is asked for.
        self.access: Callable[[bytes], None] | None = None

    def open(self) -> None:
        """Open the files. Raises OSError."""
        if not self._settings.logging.directory:
            return
        self.audit = Audit(self._open("audit", audit.lines_lost).add)
        self.evictions = Floods(self.audit, each_burst=_CHANGES_BURST)
        self._changes = Floods(self.audit, each_burst=_CHANGES_BURST)
        self._refusals = Floods(self.audit)
        if self._settings.security.audit_writes:
            self.writes = Audit(self._open("writes", audit.lines_lost).gather)
        if self._settings.logging.access:
            self.access = self._open("access", _requests_lost).gather

    def operator(self, event: str, who: str, facts: Mapping[str, object]) -> None:
        """See `config.manager.Auditor` and `backends.server.Auditor`."""
        (self._refusals if event == "config_refused" else self._changes).record(event, who, **facts)

    def tell(self, *, at_once: bool = False) -> None:
        """See `Floods.tell`."""
        for floods in (self.evictions, self._changes, self._refusals):
            floods.tell(at_once=at_once)

    def close(self) -> None:
        """Write what is left, and no more. Blocks, a second or two at most."""
        self.tell(at_once=True)
        self._writers.close("audit", "writes", "access")

    def _open(self, name: str, lines_lost: LinesLost) -> LogWriter:
        return self._writers.open(name, self._settings.logging, lines_lost)


def _forget(line: bytes) -> None:
    """Drop a line: the trail is off."""


def _requests_lost(lines: int) -> bytes:
    return json.dumps({"lines_lost": lines}).encode() + b"\n"
