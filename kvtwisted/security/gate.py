"""The gate that every request passes on either transport: from what a visitor shows to what may be done.

Without tokens and client certificates the gate is open: everybody who reaches the server may do everything, which is
why it then listens on loopback alone (`kvtwisted.config.rules`).
"""

from __future__ import annotations

from time import time
from typing import Callable, NamedTuple, Protocol

from ..core.errors import Unauthenticated
from ..core.operations import Operations
from ..core.service import Service
from . import policy
from .access import Access, Denied, Written
from .audit import ANONYMOUS, Audit
from .authority import Authority
from .buckets import Addresses, Both, Budget, OfAddress, Rate, network_of
from .grants import OPERATIONS, Grant, Principal

#: What a name in a client's certificate begins with in the audit log.
CERTIFICATE = "cert:"
#: Principals of certificates that are remembered; the one that came first is forgotten for a new one.
_MAX_CERTIFIED = 4096

#: Passes that are given; of more the oldest are withdrawn at the next look.
MAX_PASSES = 4096

_EVERYTHING = (Grant(frozenset(OPERATIONS)),)


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

    `operations` are those of the server, as far as they are granted. Any thread.
    """

    def __init__(self, operations: Service, principal: Principal | None, denied: Callable[[str, str], object]) -> None:
        """Without `principal` it is for visitors who show nothing: only what is public is open to them.

        `denied` is told who was refused what.
        """
        self.operations = operations
        self.principal = principal
        self._denied = denied

    @property
    def is_known(self) -> bool:
        """Whether somebody has shown who they are, or need not."""
        return self.principal is not None

    def require(self, requirement: str) -> None:
        """Raise Unauthenticated or PermissionDenied unless the requirement of the policy's table is met."""
        try:
            policy.admit(requirement, self.principal)
        except Exception:
            self._denied(ANONYMOUS if self.principal is None else self.principal.name, requirement)
            raise


#: Called, on the reactor thread, with the passes that hold no longer.
Watcher = Callable[["frozenset[Pass]"], None]


class Gate(Protocol):
    """Any thread may ask to be admitted."""

    def admit(self, visitor: Visitor) -> Pass:
        """Who it is. Raises Unauthenticated when what is shown is not valid, RateLimited after too many attempts."""

    def watch(self, watcher: Watcher) -> None:
        """Call `watcher` whenever passes are withdrawn."""

    def look(self, *, anew: bool = False) -> None:
        """Withdraw the passes that hold no longer; `anew`: all. Reactor thread; every second."""


class _Passes:
    """The passes that have been given. Any thread, but `withdraw`."""

    def __init__(self, operations: Operations, addresses: Addresses, denied: Denied, written: Written | None) -> None:
        self._operations = operations
        self._addresses = addresses
        self._denied = denied
        self._written = written
        # Where addresses have rates, a principal has a pass for each address that it comes from.
        self._given: dict[tuple[Principal, str], Pass] = {}

    def of(self, principal: Principal, address: str) -> Pass:
        """The principal's."""
        network = network_of(address) if self._addresses.limited else ""
        found = self._given.get((principal, network))
        if found is None:
            access = Access(
                self._operations,
                principal,
                denied=self._denied,
                written=self._written,
                limiter=self._limiter(principal, network),
            )
            # Two threads may both make one; the first is everybody's.
            found = self._given.setdefault((principal, network), Pass(access, principal, self._refused))
        return found

    def withdraw(self, gone: Callable[[Principal], bool]) -> frozenset[Pass]:
        """Take back those of the principals who are `gone`, and the oldest if there are too many."""
        given = tuple(self._given)
        withdrawn = [key for key in given if gone(key[0])]
        withdrawn += given[: max(0, len(given) - MAX_PASSES)]
        return frozenset([found for key in withdrawn if (found := self._given.pop(key, None)) is not None])

    def _limiter(self, principal: Principal, network: str) -> Budget | None:
        if not self._addresses.limited:
            return principal.limiter
        of_address = OfAddress(self._addresses, network)
        return of_address if principal.limiter is None else Both(principal.limiter, of_address)

    def _refused(self, who: str, operation: str) -> None:
        self._denied(Principal(who, ()), operation)


class OpenGate:
    """The gate of a server without authentication: everybody may do everything, at the rate of an address."""

    def __init__(
        self,
        operations: Operations,
        addresses: Addresses | None = None,
        written: Written | None = None,
    ) -> None:
        """`written` is told of each write."""
        self._everybody = Principal(ANONYMOUS, _EVERYTHING)
        self._passes = _Passes(
            operations, Addresses(Rate()) if addresses is None else addresses, lambda who, what: None, written
        )
        self._watchers: list[Watcher] = []

    def admit(self, visitor: Visitor) -> Pass:
        """Everybody; what they show is not looked at."""
        return self._passes.of(self._everybody, visitor.address)

    def watch(self, watcher: Watcher) -> None:
        """See `Gate.watch`."""
        self._watchers.append(watcher)

    def look(self, *, anew: bool = False) -> None:
        """See `ClosedGate.look`."""
        _tell(self._watchers, self._passes.withdraw(lambda _: anew))


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
        addresses: Addresses | None = None,
        written: Written | None = None,
        wall: Callable[[], float] = time,
    ) -> None:
        """`written` is told of each write that was let in; None: nobody is. `wall` is Unix time, in seconds."""
        self._authority = authority
        self._audit = audit
        self._wall = wall
        self._watchers: list[Watcher] = []
        self._passes = _Passes(operations, Addresses(Rate()) if addresses is None else addresses, self._denied, written)
        self._certified: dict[str, Principal] = {}
        nobody = Access(operations, Principal(ANONYMOUS, ()), denied=self._denied)
        self._nobody = Pass(nobody, None, lambda who, what: self._audit.record("denied", who, operation=what))

    def admit(self, visitor: Visitor) -> Pass:
        """See `Gate.admit`."""
        if visitor.authorization:
            return self._passes.of(self._log_in(visitor), visitor.address)
        if visitor.certificate is not None:
            found = self._of_certificate(visitor.certificate)
            if found is not None:
                return self._passes.of(found, visitor.address)
        return self._nobody

    def watch(self, watcher: Watcher) -> None:
        """See `Gate.watch`."""
        self._watchers.append(watcher)

    def look(self, *, anew: bool = False) -> None:
        """Withdraw the passes of tokens that were revoked, changed or have expired; `anew`: all. Reactor thread; every
        second.
        """
        now = self._wall()
        _tell(self._watchers, self._passes.withdraw(lambda principal: anew or now >= principal.valid_until))

    def _log_in(self, visitor: Visitor) -> Principal:
        if self._authority is None:
            raise Unauthenticated("there are no tokens on this server; it goes by client certificates")
        try:
            return self._authority.principal(visitor.authorization, network_of(visitor.address))
        except Unauthenticated as error:
            self._audit.record("login_failed", ANONYMOUS, address=visitor.address, reason=str(error))
            raise

    def _of_certificate(self, name: str) -> Principal | None:
        if self._authority is not None:
            return self._authority.of_certificate(name)
        principal = self._certified.get(name)
        if principal is None:
            if len(self._certified) >= _MAX_CERTIFIED:
                # Forgotten as principals, they are made anew when they come again.
                self._certified.pop(next(iter(self._certified))).revoke()
            principal = self._certified[name] = Principal(CERTIFICATE + name, _EVERYTHING)
        return principal

    def _denied(self, principal: Principal, operation: str) -> None:
        self._audit.record("denied", principal.name, operation=operation)


def _tell(watchers: list[Watcher], withdrawn: frozenset[Pass]) -> None:
    if withdrawn:
        for watcher in watchers:
            watcher(withdrawn)
