"""The gate: from what a client shows to its session, the same for every transport.

Without tokens and client certificates the gate is open: every client that reaches the server may do everything, so that
it then listens on loopback only (`kvtwisted.config.rules`).
"""

from __future__ import annotations

import math
from threading import Lock
from time import monotonic, time
from typing import Callable, NamedTuple
from weakref import WeakValueDictionary

from ..core.errors import KvError, RateLimited, Unauthenticated
from .admission import Admission
from .audit import ANONYMOUS, Audit, Auditing, Floods
from .authority import Authority
from .buckets import Addresses, Budget, Limiter, Rate, network_of
from .door import Door
from .grants import ADMIN, OPERATIONS, Grant, Principal
from .session import Session, Written

#: What a name in a client's certificate begins with in the audit log.
CERTIFICATE = "cert:"
#: Sessions that are kept; of more the oldest are withdrawn at the next look.
MAX_SESSIONS = 4096
#: Principals of certificates that are remembered; a new one replaces the oldest.
_MAX_CERTIFIED = 4096

#: Requests of an administrator that are let in beyond the capacity.
RESERVED_REQUESTS = 8

_EVERYTHING = (Grant(frozenset(OPERATIONS)),)


class Visitor(NamedTuple):
    """What a connection and a request show about the client."""

    #: The peer's IP address.
    address: str
    #: The values of the headers `Authorization`, as they came.
    authorization: tuple[bytes, ...] = ()
    #: The name in the client's certificate, which TLS has verified.
    certificate: str | None = None
    #: When that certificate ends, in seconds since 1970; from then on it shows nothing.
    certificate_until: float = math.inf

    def __repr__(self) -> str:
        """Without the secret that it may hold."""
        return f"<Visitor {self.address} {self.certificate!a} {len(self.authorization)} authorization>"


#: Called, on the reactor thread, with the sessions that were withdrawn.
Withdrawn = Callable[["frozenset[Session]"], None]


class Gate:
    """Gives visitors their sessions. Any thread, unless said.

    A certificate counts only for a visitor who sends no token. Where there are tokens, those of their entries that name
    it say what it may do; where there are none, whoever has a certificate of the configured authority may do
    everything. Where clients show neither, everybody may, at the rate of an address.
    """

    def __init__(
        self,
        door: Door,
        admission: Admission,
        authority: Authority | None = None,
        audit: Auditing | None = None,
        *,
        certificates: bool = False,
        addresses: Addresses | None = None,
        written: Written | None = None,
        count: Callable[[str], object] = lambda reason: None,
        wall: Callable[[], float] = time,
        seconds: Callable[[], float] = monotonic,
    ) -> None:
        """Each principal's requests enter a share of `admission`, those of an open gate all of it.

        `certificates` says that clients show them. `written` is told of each write that was let in, `count` the code of
        each refusal. `wall` is Unix time, in seconds; `seconds` a monotonic one.
        """
        #: Whether nobody is asked for anything.
        self.is_open = authority is None and not certificates
        self._everybody = Principal(ANONYMOUS, _EVERYTHING)
        self._authority = authority
        self._refusals = Floods(audit or Audit(lambda line: None), seconds)
        self._count = count
        self._wall = wall
        self._door = door
        self._admission = admission
        self._addresses = Addresses(Rate()) if addresses is None else addresses
        self._written = written
        self._seconds = seconds
        self._listeners: list[Withdrawn] = []
        self._lock = Lock()
        self._certified: dict[str, Principal] = {}
        # Where addresses have rates, a principal has a session for each address that it comes from.
        self._sessions: dict[tuple[Principal, str], Session] = {}
        # By the principals' names: one for all sessions, also for those of a token that has other rights now, as long
        # as there is any, or a request in it.
        self._admissions: WeakValueDictionary[str, Admission] = WeakValueDictionary()
        self._nobody = Session(door, Principal(ANONYMOUS, ()), admission, self._refused, is_known=False)

    def admit(self, visitor: Visitor) -> Session:
        """The visitor's session. Raises Unauthenticated when the token or certificate is not valid, RateLimited after
        too many attempts."""
        found = self.find(visitor)
        if found is not None:
            return found
        return self._session(self._log_in(visitor), visitor.address) if visitor.authorization else self._nobody

    def find(self, visitor: Visitor) -> Session | None:
        """The same for a known visitor, else None, which does not count as an attempt: `admit` comes next."""
        principal: Principal | None = None
        if self.is_open:
            principal = self._everybody
        elif visitor.authorization:
            if self._authority is not None:
                principal = self._authority.find(visitor.authorization)
        elif visitor.certificate is not None and self._wall() < visitor.certificate_until:
            principal = self._of_certificate(visitor.certificate)
        return None if principal is None else self._session(principal, visitor.address)

    def on_withdrawal(self, listener: Withdrawn) -> None:
        """Call `listener` whenever sessions are withdrawn."""
        self._listeners.append(listener)

    def look(self, *, anew: bool = False) -> None:
        """Withdraw the sessions of tokens that were revoked, changed or have expired; `anew`: all.

        So do the oldest of too many. Tell of refusals that had no line in the audit log. Reactor thread; every second.
        """
        self._refusals.tell()
        now, open_ = self._wall(), tuple(self._sessions)
        keys = [key for key in open_ if anew or now >= key[0].valid_until]
        keys += open_[: max(0, len(open_) - MAX_SESSIONS)]
        withdrawn = set()
        for key in keys:
            found = self._sessions.pop(key, None)
            if found is not None:
                found.is_replaced = key[0].is_replaced or now < key[0].valid_until
                found.withdraw()
                withdrawn.add(found)
        if withdrawn:
            for listener in self._listeners:
                listener(frozenset(withdrawn))

    def close(self) -> None:
        """Tell the audit log of all refusals."""
        self._refusals.tell(at_once=True)

    def _log_in(self, visitor: Visitor) -> Principal:
        try:
            if self._authority is None:
                raise Unauthenticated("there are no tokens on this server; it goes by client certificates")
            return self._authority.principal(visitor.authorization, network_of(visitor.address))
        except KvError as error:
            self._count(error.code)
            if isinstance(error, Unauthenticated):
                self._refusals.record("login_failed", ANONYMOUS, address=visitor.address, reason=str(error))
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
                        # They are made again when they come back.
                        self._certified.pop(next(iter(self._certified))).revoke(is_replaced=True)
                    principal = self._certified[name] = Principal(CERTIFICATE + name, _EVERYTHING)
        return principal

    def _refused(self, who: str, address: str, operation: str, error: KvError) -> None:
        self._count(error.code)
        if not isinstance(error, RateLimited):
            facts = {"address": address} if address else {}
            self._refusals.record("denied", who, operation=operation, **facts)

    def _session(self, principal: Principal, address: str) -> Session:
        network = network_of(address) if self._addresses.limited else ""
        found = self._sessions.get((principal, network))
        if found is None:
            # Two threads may both make one; the first is everybody's.
            admission = self._admissions.setdefault(principal.name, self._admission_of(principal))
            made = Session(
                self._door, principal, admission, self._refused,
                written=self._written, limiter=self._limiter(principal, network), seconds=self._seconds,
                whose=self._whose(principal),
            )  # fmt: skip
            found = self._sessions.setdefault((principal, network), made)
        return found

    def _admission_of(self, principal: Principal) -> Admission:
        if self.is_open:
            return self._admission
        return self._admission.share(RESERVED_REQUESTS if principal.allows(ADMIN) else 0)

    def _limiter(self, principal: Principal, network: str) -> Limiter | Budget | None:
        if not self._addresses.limited:
            return principal.limiter
        # Administrators have a rate of each address to themselves: others there cannot use it up and keep them out.
        own_network = f"{network} {ADMIN}" if principal.allows(ADMIN) else network
        return Budget(principal.limiter, self._addresses, own_network)

    def _whose(self, principal: Principal) -> str:
        """Which rates a request may be over, for messages. Those who have others later have other sessions then."""
        whose = []
        if principal.limiter is not None:
            whose.append(f"the token (which may have {principal.limiter.rate})")
        if self._addresses.limited:
            whose.append(f"the address (which may have {self._addresses.rate})")
        return " or ".join(whose)
