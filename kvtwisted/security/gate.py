"""The gate that every request passes on either transport: from what a visitor shows to what may be done.

Without tokens and client certificates the gate is open: everybody who reaches the server may do everything, which is
why it then listens on loopback alone (`kvtwisted.config.rules`).
"""

from __future__ import annotations

from typing import Callable, NamedTuple, Protocol

from ..core.errors import Unauthenticated
from ..core.operations import Operations


class Visitor(NamedTuple):
    """What a connection and a request show of who is there."""

    #: The peer's IP address.
    address: str
    #: The values of the headers `Authorization`, as they came.
    authorization: tuple[bytes, ...] = ()
    #: The name in the client's certificate, which TLS has verified.
    certificate: str | None = None


class Pass:
    """What a visitor may do until the gate says otherwise. One for each principal: the same object as long as it holds.

    `operations` are those of the server, as far as they are granted.
    """

    def __init__(
        self, who: str, operations: Operations, check: Callable[[str], None], *, is_known: bool = True
    ) -> None:
        """`check` raises PermissionDenied for an operation that is granted on no key at all."""
        #: The principal, as the audit log names it.
        self.who = who
        self.operations = operations
        self.check = check
        #: False for a visitor who shows nothing: only what is public is open to them.
        self.is_known = is_known


def nothing_shown() -> Unauthenticated:
    """What somebody is told who shows nothing and wants what is not public."""
    return Unauthenticated("a token is needed: send the header Authorization: Bearer <token>")


#: Called, on the reactor thread, with the passes that hold no longer.
Watcher = Callable[["frozenset[Pass]"], None]


class Gate(Protocol):
    """Thread-safe."""

    def admit(self, visitor: Visitor) -> Pass:
        """Who it is. Raises Unauthenticated when what is shown is not valid, RateLimited after too many attempts."""

    def watch(self, watcher: Watcher) -> None:
        """Call `watcher` whenever passes are withdrawn, before any later request is admitted."""


class OpenGate:
    """The gate of a server without authentication."""

    def __init__(self, operations: Operations) -> None:
        self._pass = Pass("anonymous", operations, lambda operation: None)

    def admit(self, visitor: Visitor) -> Pass:
        """Everybody; what they show is not looked at."""
        return self._pass

    def watch(self, watcher: Watcher) -> None:
        """The one pass is never withdrawn."""
