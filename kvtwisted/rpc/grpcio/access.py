"""The caller of a call on the threaded transport, and what runs its calls. Any thread."""

from __future__ import annotations

from typing import Any, Callable, cast
from urllib.parse import unquote

import grpc

from ...core.errors import KvError
from ...sessions.gate import Gate, Visitor
from ...sessions.session import Session
from ...tls.listening import rpc_peer
from .. import rights
from ..errors import call_error
from .calls import ThreadedCalls


class Access:
    """The gate for calls as grpcio gives them."""

    def __init__(self, gate: Gate, make_calls: Callable[[Session], ThreadedCalls]) -> None:
        """`make_calls` makes what runs the calls of one principal."""
        self._gate = gate
        self._make_calls = make_calls

    def admit(self, context: grpc.ServicerContext, path: str) -> Session:
        """Who makes this call of the method at `path`. Raises CallError if the caller may never do that."""
        try:
            visitor = _visitor(context)
            admitted = self._gate.admit(visitor)
            rights.check(admitted, path, visitor.address)
        except KvError as error:
            raise call_error(error, "authentication") from None
        return admitted

    def calls(self, context: grpc.ServicerContext, path: str) -> ThreadedCalls:
        """What runs it. Raises CallError too."""
        return self._make_calls(self.admit(context, path))


def _visitor(context: grpc.ServicerContext) -> Visitor:
    authorization = [value for name, value in context.invocation_metadata() or () if name == "authorization"]
    return Visitor(
        address_of(context.peer()),
        tuple([value if isinstance(value, bytes) else value.encode("utf-8", "replace") for value in authorization]),
        # What the stubs call bytes is several of them.
        *rpc_peer(cast(Any, context.auth_context())),
    )


def address_of(peer: str) -> str:
    """The IP address in what grpcio calls a peer: "ipv4:127.0.0.1:4711" or "ipv6:%5B::1%5D:4711"."""
    return unquote(peer).partition(":")[2].rpartition(":")[0].strip("[]")
