"""Slots for streams that stay open: bounded in number, and no client has all. Needs no transport; any thread.

A stream that idles costs its client nothing, and would keep others out without end; see Note [A share for each
principal].
"""

from __future__ import annotations

import threading
from typing import NamedTuple

from ..sessions.admission import Share
from ..sessions.session import Session
from ..sessions.shares import OF_OWNER, Shares, three_quarters
from .errors import CallError, Code
from .options import GrpcOptions

#: Open reflection streams, since each takes a thread of the threaded transport.
MAX_REFLECTION_STREAMS = 4


class Slots:
    """Those of one kind."""

    def __init__(self, what: str, limit: str, capacity: int, whose: str = "") -> None:
        """`what`, `limit` and `whose` are for sentences: "Watch streams", what sets their number, "address".

        `capacity` streams may be open; of one owner three quarters, but one at least.
        """
        self._what = what
        self._limit = limit
        self._capacity = capacity
        self._whose = whose
        self._share = three_quarters(capacity)
        self._lock = threading.Lock()
        self._counts = Shares()
        #: Streams that were refused, since the start.
        self.refused = 0

    @property
    def open(self) -> int:
        """Streams that are open."""
        return self._counts.open

    def enter(self, owner: str | None = None) -> None:
        """Count in one stream of `owner`; streams without an owner (None) have no share. Raises CallError, which names
        the limit."""
        with self._lock:
            reason = self._counts.enter(owner, self._capacity, self._share)
            if reason is not None:
                self.refused += 1
                share = f", of which each {self._whose} may have {self._share}" if reason == OF_OWNER else ""
                sentence = f"too many {self._what}: {self._limit} is {self._capacity}{share}; try again"
                raise CallError(Code.RESOURCE_EXHAUSTED, sentence)

    def leave(self, owner: str | None = None) -> None:
        """Count it out; for each `enter` that returned there must be one."""
        with self._lock:
            self._counts.leave(owner)


class StreamSlots(NamedTuple):
    """The slots of a server, by the kinds that metrics show."""

    pipeline: Slots
    watch: Slots
    reflection: Slots


def make_slots(options: GrpcOptions, threads: int | None = None) -> StreamSlots:
    """Those of a new server. `threads` are those of the threaded transport, of which pipelines may have half."""
    limit, pipelines = "limits.max_pipelines", options.max_pipelines
    if threads is not None and threads // 2 < pipelines:
        limit, pipelines = "half of grpc.threads", threads // 2
    return StreamSlots(
        Slots("pipelines", limit, pipelines, "principal"),
        Slots("Watch streams", "limits.max_watches", options.max_watches, "address"),
        Slots("reflection streams", "their limit", MAX_REFLECTION_STREAMS),
    )


def share_of(admitted: Session) -> str | None:
    """The principal that the streams of this session count for; None at an open gate, where all are one principal."""
    is_share = isinstance(admitted.admission, Share)
    return admitted.principal.name if is_share and admitted.is_known else None
