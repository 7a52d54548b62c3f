"""The caller of a call on the threaded transport. Any thread."""

from __future__ import annotations

from typing import Any, cast
from urllib.parse import unquote

import grpc

from ...sessions.gate import Gate, Visitor
from ...sessions.session import Session
from ...tls.listening import rpc_peer
from .. import rights


def admit(gate: Gate, context: grpc.ServicerContext, path: str) -> Session:
    """Who makes this call of the method at `path`. Raises KvErrors if the caller may never do that."""
    authorization = [value for name, value in context.invocation_metadata() or () if name == "authorization"]
    visitor = Visitor(
        address_of(context.peer()),
        tuple([value if isinstance(value, bytes) else value.encode("utf-8", "replace") for value in authorization]),
        # What the stubs call bytes is several of them.
        *rpc_peer(cast(Any, context.auth_context())),
    )
    admitted = gate.admit(visitor)
    rights.check(admitted, path, visitor.address)
    return admitted


def address_of(peer: str) -> str:
    """The IP address in what grpcio calls a peer: "ipv4:127.0.0.1:4711" or "ipv6:%5B::1%5D:4711"."""
    return unquote(peer).partition(":")[2].rpartition(":")[0].strip("[]")
