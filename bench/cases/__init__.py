"""A module for each group of cases; GROUPS has them in the order in which they are measured."""

from __future__ import annotations

from ..plan import Group
from . import cold, connections, deleted, grpc, http, layers, security, service

GROUPS: tuple[Group, ...] = (
    service.GROUP, layers.GROUP, grpc.GROUP, http.GROUP, security.GROUP, connections.IDLE, connections.ACTIVE,
    cold.GROUP, deleted.GROUP,
)  # fmt: skip
