"""The slots of gRPC's own streams that stay open. Needs no transport; any thread."""

from __future__ import annotations

from typing import NamedTuple

from ..config.settings import LimitSettings
from ..sessions.session import Session
from ..sessions.slots import Slots

#: Open reflection streams, since each takes a thread of the threaded transport.
MAX_REFLECTION_STREAMS = 4


class StreamSlots(NamedTuple):
    """The slots of a server, by the kinds that metrics show.

    Watches and ScanStreams have those of `sessions.streams`.
    """

    pipeline: Slots
    watch: Slots
    reflection: Slots


def make_slots(limits: LimitSettings, threads: int | None = None) -> StreamSlots:
    """Those of a new server. `threads` are those of the threaded transport, of which pipelines may have half."""
    limit, pipelines = "limits.max_pipelines", limits.max_pipelines
    if threads is not None and threads // 2 < pipelines:
        limit, pipelines = "half of grpc.threads", threads // 2
    return StreamSlots(
        Slots("pipelines", limit, pipelines, "principal"),
        Slots("Watch streams", "limits.max_watches", limits.max_watches, "address"),
        Slots("reflection streams", "their limit", MAX_REFLECTION_STREAMS),
    )


def share_of(admitted: Session) -> str | None:
    """The principal that the streams of this session count for; None at an open gate, where all are one principal."""
    return admitted.owner
