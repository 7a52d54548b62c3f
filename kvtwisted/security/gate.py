"""The gate that every request passes on either transport: from what a visitor shows to what may be done.

Without tokens and client certificates the gate is open: everybody who reaches the server may do everything, which is
why it then listens on loopback alone (`kvtwisted.config.rules`).
"""

from __future__ import annotations

from threading import Lock
from time import monotonic, time
from typing import Callable, NamedTuple, Protocol

from ..core.errors import KvError, PermissionDenied, RateLimited, Unauthenticated
from ..core.operations import Operations
from ..core.service import Service
from . import buckets, policy
from .access import Access, Written
from .audit import ANONYMOUS, Audit, Refusals
from .authority import Authority
from .buckets import network_of
from .grants import ADMIN, METRICS, OPERATIONS, Grant, Principal

#: What a name in a client's certificate begins with in the audit log.
CERTIFICATE = "cert:"
#: Principals of certificates that are remembered; the one that came first is forgotten for a new one.
_MAX_CERTIFIED = 4096

_EVERYTHING = (Grant(frozenset(OPERATIONS)),)


class Visitor(NamedTuple):
    """What a connection and a request show of who is there."""

    #: The peer's IP address.
    address: str
    #: The values of the headers `Authorization`, as they came.
    authorization: tuple[bytes, ...] = ()
    #: The name in the client's certificate, which TLS has verified.
    certificate: str | None = None

    def __repr__(self) -> str:
        """Without the secret that it may hold."""
        return f"<Visitor {self.address} {self.certificate!a} {len(self.authorization)} authorization>"


#: Told who (with the address of somebody anonymous) was refused what, and why.
Refused = Callable[[str, str, str, KvError], object]


class Pass:
    """What a visitor may do until the gate says otherwise. One for each principal: the same object as long as it holds.

    `operations` are those of the server, as far as they are granted. Any thread.
    """

    def __init__(
        self,
        operations: Service,
        principal: Principal | None,
        refused: Refused,
        seconds: Callable[[], float] = monotonic,
    ) -> None:
        """Without `principal` it is for visitors who show nothing: only what is public is open to them."""
        self._seconds = seconds
        self.operations = operations
        self.principal = principal
        self._refused = refused

    @property
    def is_known(self) -> bool:
        """Whether somebody has shown who they are, or need not."""
        return self.principal is not None

    def require(self, requirement: str, address: str) -> None:
        """Raise Unauthenticated or PermissionDenied unless the requirement of the policy's table is met.

        RateLimited, if it is for what `operations` do not see, and over the principal's rate.

        `address` is where the request comes from, for the audit log.
        """
        try:
            policy.admit(requirement, self.principal)
            if requirement in (METRICS, ADMIN):
                self._take()
        except KvError as error:
            if self.principal is None:
                self._refused(ANONYMOUS, address, requirement, error)
            else:
                self._refused(self.principal.name, "", requirement, error)
            raise

    def _take(self) -> None:
        """Take one from the rate, for what `operations` do not see."""
        limiter = None if self.principal is None else self.principal.limiter
        if limiter is not None:
            buckets.admit(limiter.take(1, 0, self._seconds()), "the token")

    @property
    def is_replaced(self) -> bool:
        """Of one that was withdrawn: whether who showed it only has to show it again."""
        return self.principal is not None and self.principal.is_replaced


#: Called, on the reactor thread, with the passes that hold no longer.
Watcher = Callable[["frozenset[Pass]"], None]


class Gate(Protocol):
    """Any thread may ask to be admitted."""

    def admit(self, visitor: Visitor) -> Pass:
        """Who it is. Raises Unauthenticated when what is shown is not valid, RateLimited after too many attempts."""

    def find(self, visitor: Visitor) -> Pass | None:
        """The same if it is somebody known, else None, which is no attempt: whoever asks comes to `admit` next."""

    def watch(self, watcher: Watcher) -> None:
        """Call `watcher` whenever passes are withdrawn."""


class OpenGate:
    """The gate of a server without authentication."""

    def __init__(self, operations: Service) -> None:
        """Everybody may do everything that `operations` do."""
        self._pass = Pass(operations, Principal(ANONYMOUS, _EVERYTHING), lambda who, address, what, error: None)

    def admit(self, visitor: Visitor) -> Pass:
        """Everybody; what they show is not looked at."""
        return self._pass

    def find(self, visitor: Visitor) -> Pass | None:
        """The same."""
        return self._pass

    def watch(self, watcher: Watcher) -> None:
        """The one pass is never withdrawn."""


def audited(operations: Operations, written: Written | None) -> Service:
    """The operations for an open gate: all of them, with who changes the configuration, and told of to `written`."""
    return Access(operations, Principal(ANONYMOUS, _EVERYTHING), written=written)


class ClosedGate:
    """The gate of a server with tokens, client certificates, or both.

    A certificate counts only for a visitor who sends no token. Where there are tokens, those of their entries that name
    it say what it may do; where there are none, whoever has a certificate of the configured authority may do
    everything.
    """

    def __init__(
        self,
        operations: Operations,
        authority: Authority | None,
        audit: Audit,
        *,
        written: Written | None = None,
        count: Callable[[str], object] = lambda reason: None,
        wall: Callable[[], float] = time,
        seconds: Callable[[], float] = monotonic,
    ) -> None:
        """`written` is told of each write that was let in; None: nobody is. `count` is told the code of each refusal.

        `wall` is Unix time, in seconds; `seconds` a monotonic one.
        """
        self._operations = operations
        self._authority = authority
        self._refusals = Refusals(audit, seconds)
        self._written = written
        self._count = count
        self._wall = wall
        self._seconds = seconds
        self._watchers: list[Watcher] = []
        self._passes: dict[Principal, Pass] = {}
        self._lock = Lock()
        self._certified: dict[str, Principal] = {}
        nobody = Principal(ANONYMOUS, ())
        self._nobody = Pass(Access(operations, nobody, denied=self._denied), None, self._refused)

    def admit(self, visitor: Visitor) -> Pass:
        """See `Gate.admit`."""
        found = self.find(visitor)
        if found is not None:
            return found
        return self._pass_of(self._log_in(visitor)) if visitor.authorization else self._nobody

    def find(self, visitor: Visitor) -> Pass | None:
        """See `Gate.find`."""
        principal = None
        if visitor.authorization:
            if self._authority is not None:
                principal = self._authority.find(visitor.authorization)
        elif visitor.certificate is not None:
            principal = self._of_certificate(visitor.certificate)
        return None if principal is None else self._pass_of(principal)

    def watch(self, watcher: Watcher) -> None:
        """See `Gate.watch`."""
        self._watchers.append(watcher)

    def look(self) -> None:
        """Withdraw the passes of tokens that were revoked, changed or have expired. Reactor thread; every second."""
        now = self._wall()
        gone = [principal for principal in tuple(self._passes) if now >= principal.valid_until]
        withdrawn = frozenset([self._passes.pop(principal) for principal in gone])
        if withdrawn:
            for watcher in self._watchers:
                watcher(withdrawn)

    def _pass_of(self, principal: Principal) -> Pass:
        admitted = self._passes.get(principal)
        if admitted is None:
            access = Access(
                self._operations,
                principal,
                denied=self._denied,
                limited=lambda: self._count(RateLimited.code),
                written=self._written,
                seconds=self._seconds,
            )
            # Two threads may both make one; the first is everybody's.
            admitted = self._passes.setdefault(principal, Pass(access, principal, self._refused, self._seconds))
        return admitted

    def _log_in(self, visitor: Visitor) -> Principal:
        try:
            if self._authority is None:
                raise Unauthenticated("there are no tokens on this server; it goes by client certificates")
            return self._authority.principal(visitor.authorization, network_of(visitor.address))
        except KvError as error:
            self._count(error.code)
            if isinstance(error, Unauthenticated):
                self._refusals.record("login_failed", ANONYMOUS, visitor.address, reason=str(error))
            raise

    def _of_certificate(self, name: str) -> Principal | None:
        if self._authority is not None:
            return self._authority.of_certificate(name)
        principal = self._certified.get(name)
        if principal is None:
            with self._lock:
                principal = self._certified.get(name)
                if principal is None:
                    if len(self._certified) >= _MAX_CERTIFIED:
                        # Forgotten as principals, they are made anew when they come again.
                        self._certified.pop(next(iter(self._certified))).revoke(is_replaced=True)
                    principal = self._certified[name] = Principal(CERTIFICATE + name, _EVERYTHING)
        return principal

    def _denied(self, principal: Principal, operation: str) -> None:
        self._count(PermissionDenied.code)
        self._refusals.record("denied", principal.name, operation=operation)

    def _refused(self, who: str, address: str, operation: str, error: KvError) -> None:
        self._count(error.code)
        if not isinstance(error, RateLimited):
            self._refusals.record("denied", who, address, operation=operation)
