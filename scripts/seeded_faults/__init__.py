"""The mistakes that `scripts/seeded-faults` makes, by the room that they are in."""

from __future__ import annotations

from . import commands, deciding, http, http2, local_store, server, sessions, watching
from .fault import Fault

FAULTS: tuple[Fault, ...] = (
    *commands.FAULTS,
    *sessions.FAULTS,
    *local_store.FAULTS,
    *deciding.FAULTS,
    *watching.FAULTS,
    *http2.FAULTS,
    *http.FAULTS,
    *server.FAULTS,
)
