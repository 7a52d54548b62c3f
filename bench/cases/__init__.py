"""A module for each group of cases.

GROUPS has them in the order in which they are measured; BESIDE is measured only when it is asked for.
"""

from __future__ import annotations

from ..plan import Group
from . import (
    batches,
    beside,
    cold,
    conditions,
    connections,
    deleted,
    grpc,
    http,
    layers,
    pipeline,
    ranges,
    security,
    service,
    streams,
    watch,
)

GROUPS: tuple[Group, ...] = (
    service.GROUP, layers.GROUP, grpc.GROUP, pipeline.GROUP, batches.GROUP, batches.LARGE_GROUP, http.GROUP,
    conditions.GROUP, streams.GROUP, watch.GROUP, ranges.GROUP, security.GROUP, connections.IDLE, connections.ACTIVE,
    cold.GROUP, deleted.GROUP,
)  # fmt: skip
BESIDE = beside.GROUP
