"""The passes that a gate gives: who may do what until it says otherwise."""

from __future__ import annotations

from time import monotonic
from typing import Callable
from weakref import WeakValueDictionary

from ..core.admission import Admission
from ..core.errors import KvError, RateLimited
from ..core.operations import Operations
from ..core.service import Service
from . import buckets, policy
from .access import Access, Denied, Written
from .audit import ANONYMOUS
from .buckets import Addresses, Both, Budget, OfAddress, network_of
from .grants import ADMIN, METRICS, Principal

#: Passes that are given; of more the oldest are withdrawn at the next look.
MAX_PASSES = 4096

#: Told who (with the address of somebody anonymous) was refused what, and why.
Refused = Callable[[str, str, str, KvError], object]


class Pass:
    """What a visitor may do until the gate says otherwise. One for each principal: the same object as long as it holds.

    `operations` are those of the server, as far as they are granted, and `admission` what their requests enter.
    Any thread.
    """

    def __init__(
        self,
        operations: Service,
        principal: Principal | None,
        admission: Admission,
        refused: Refused,
        limiter: Budget | None = None,
        seconds: Callable[[], float] = monotonic,
        whose: str = "",
    ) -> None:
        """Without `principal` it is for visitors who show nothing: only what is public is open to them."""
        self._seconds = seconds
        self.operations = operations
        self.admission = admission
        self.principal = principal
        self._refused = refused
        self._limiter = limiter
        self._whose = whose
        #: Of one that was withdrawn: whether the principal only has to come again.
        self.is_replaced = False

    @property
    def is_known(self) -> bool:
        """Whether somebody has shown who they are, or need not."""
        return self.principal is not None

    @property
    def name(self) -> str:
        """What the audit log calls whose it is."""
        return ANONYMOUS if self.principal is None else self.principal.name

    @property
    def administers(self) -> bool:
        """Whether it is an administrator's."""
        return self.principal is not None and self.principal.allows(ADMIN)

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

    def charge(self, size: int) -> None:
        """Take one operation from the rate for a request that is about to be read, and its `size` bytes whether they
        are there or not; raises RateLimited. Without it what is refused for its content would cost nothing.
        """
        if self._limiter is not None:
            self._take_counted()
            self._limiter.spend(0, size, self._seconds())

    def give_back(self, size: int) -> None:
        """Undo `charge`: the request was good, and `operations` take what it costs."""
        if self._limiter is not None:
            self._limiter.spend(-1, -size, self._seconds())

    def check_rate(self) -> None:
        """Raise RateLimited if there is nothing left to charge the next request to."""
        if self._limiter is not None:
            self._take_counted()
            self._limiter.spend(-1, 0, self._seconds())

    def _take_counted(self) -> None:
        try:
            self._take()
        except KvError as error:
            self._refused(self.name, "", "rate", error)
            raise

    def _take(self) -> None:
        """Take one from the rate, for what `operations` do not see."""
        if self._limiter is not None:
            buckets.admit(self._limiter.take(1, 0, self._seconds()), self._whose)


class Passes:
    """Those that have been given. Any thread, but `withdraw`.

    Where addresses have rates, a principal has a pass for each address that it comes from.
    """

    def __init__(
        self,
        operations: Operations,
        admission: Callable[[Principal], Admission],
        addresses: Addresses,
        refused: Refused,
        *,
        denied: Denied | None = None,
        written: Written | None = None,
        count: Callable[[str], object] = lambda reason: None,
        seconds: Callable[[], float] = monotonic,
    ) -> None:
        """`admission` gives what the requests of one principal enter.

        `count` is told the code of each refusal for a rate; see `Pass` and `Access` for the others."""
        self._operations = operations
        self._admission = admission
        self._addresses = addresses
        self._refused = refused
        self._denied = denied
        self._written = written
        self._count = count
        self._seconds = seconds
        self._given: dict[tuple[Principal, str], Pass] = {}
        # By the principals' names: one for all passes, also for those of a token that has other rights now, as long as
        # there is any, or a request in it.
        self._admissions: WeakValueDictionary[str, Admission] = WeakValueDictionary()

    def __len__(self) -> int:
        """Those that hold."""
        return len(self._given)

    def of(self, principal: Principal, address: str) -> Pass:
        """The principal's."""
        network = network_of(address) if self._addresses.limited else ""
        found = self._given.get((principal, network))
        if found is None:
            limiter, whose = self._limiter(principal, network), self._whose(principal)
            access = Access(
                self._operations,
                principal,
                denied=self._denied,
                limited=lambda: self._count(RateLimited.code),
                written=self._written,
                limiter=limiter,
                seconds=self._seconds,
                whose=whose,
            )
            # Two threads may both make one; the first is everybody's.
            admission = self._admissions.setdefault(principal.name, self._admission(principal))
            made = Pass(access, principal, admission, self._refused, limiter, self._seconds, whose)
            found = self._given.setdefault((principal, network), made)
        return found

    def withdraw(self, now: float, *, anew: bool) -> frozenset[Pass]:
        """Take back those of principals who are nobody any more, and the oldest of too many; `anew`: all.

        `now` is Unix time in seconds.
        """
        given = tuple(self._given)
        keys = [key for key in given if anew or now >= key[0].valid_until]
        keys += given[: max(0, len(given) - MAX_PASSES)]
        withdrawn = []
        for key in keys:
            found = self._given.pop(key, None)
            if found is not None:
                found.is_replaced = key[0].is_replaced or now < key[0].valid_until
                withdrawn.append(found)
        return frozenset(withdrawn)

    def _limiter(self, principal: Principal, network: str) -> Budget | None:
        if not self._addresses.limited:
            return principal.limiter
        # Administrators have a rate of each address to themselves: others there cannot use it up and keep them out.
        of_address = OfAddress(self._addresses, f"{network} {ADMIN}" if principal.allows(ADMIN) else network)
        return of_address if principal.limiter is None else Both(principal.limiter, of_address)

    def _whose(self, principal: Principal) -> str:
        """Which rates a request may be over, for messages. Those who have others later have other passes then."""
        whose = []
        if principal.limiter is not None:
            whose.append(f"the token (which may have {principal.limiter.rate})")
        if self._addresses.limited:
            whose.append(f"the address (which may have {self._addresses.rate})")
        return " or ".join(whose)
