"""One principal: what it may do, and how much, on every transport.

Note [The order of admission]: a request is refused by what costs least to know, in one order for every method, lane and
transport. May who asks ever do this (`Session.require`, before there is a body)? Is there anything left of their rate
(`charge`)? Is there room for the bytes, those of a compressed message once it is expanded (`Session.admission`)? Are
there more keys than there may be? Only then is it decoded, and `submit` looks in the same order again, and at what it
asks for: rights over each key, quota, limits. A quota cannot come before: what adds nothing goes on when all of it is
used. A request is charged one operation and its bytes before it is decoded; one that comes as far as `submit` gets that
back (`give_back`), since it pays there what it really costs, and one that is refused before does not. A refusal for
rights costs an operation, and one for want of room nothing.

Two pieces of work come earlier, since they cost less than a look at the order does: a small message of one key (`Set`
and its like) is decoded at once, as is the path of an HTTP request. What turns out to be no good is then refused as if
it had been looked at in order (`before_reading`). And an operation of a pipeline is decoded before anything is known of
it, since the number that it is answered by is in it.

Note [Refusals reveal nothing]: rights are checked before anything is read, and a refusal is the same sentence whatever
is stored. A batch with one key that is not allowed is refused whole, without naming the key.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from time import monotonic
from typing import Callable
from weakref import WeakValueDictionary

from ..commands.command import Actor, Command, ServerCommand, WriteCommand
from ..commands.get import Found, Get
from ..core.errors import KvError, PermissionDenied, without_frames
from . import buckets, policy
from .admission import UNLIMITED, Admission
from .audit import ANONYMOUS
from .buckets import Addresses, Both, Budget, OfAddress, network_of
from .door import Done, Door
from .grants import ADMIN, DELETE, GET, METRICS, OPERATIONS, SCAN, SET, Principal
from .weighing import Weighing

#: Sessions that are kept; of more the oldest are withdrawn at the next look.
MAX_SESSIONS = 4096

#: Called with who was refused what, and why; with the address if the client is unknown. Any thread; must not block or
#: raise.
Refused = Callable[[str, str, str, KvError], object]

#: Called with each write that was let in: who, what operation, which keys. Must not block or raise.
Written = Callable[[Principal, str, Collection[bytes]], object]

_SENTENCES = {
    GET: "the token does not allow reading every key of this request",
    SET: "the token does not allow writing every key of this request",
    DELETE: "the token does not allow deleting every key of this request",
    SCAN: "the token does not allow scanning every key under this prefix",
}
_OTHER = "the token does not allow this"

_EVERYTHING = (b"",)


class Session:
    """The session of one principal, until the gate withdraws it: the same object for all its connections. Reactor
    thread; `require`, `charge` and `give_back` on any.
    """

    def __init__(
        self,
        door: Door,
        principal: Principal,
        admission: Admission,
        refused: Refused,
        *,
        is_known: bool = True,
        written: Written | None = None,
        limiter: Budget | None = None,
        seconds: Callable[[], float] = monotonic,
        whose: str = "the token",
    ) -> None:
        """Its requests enter `admission`, and are charged to `limiter` (None: no limit).

        Without `is_known` it is for unknown clients, which may only use what is public. `whose` begins the sentence of
        RateLimited.
        """
        self._door = door
        self.principal = principal
        self.is_known = is_known
        self.admission = admission
        self._refused = refused
        self._written = written
        self._limiter = limiter
        self._seconds = seconds
        self._whose = whose
        self._actor = Actor(principal.name, principal.allows(ADMIN))
        self._prefixes = {operation: principal.prefixes(operation) for operation in OPERATIONS}
        self._get_prefixes = self._prefixes[GET]
        usage, measures = principal.usage, door.measures
        self._weighing = None if usage is None or measures is None else Weighing(usage, measures)
        #: Of one that was withdrawn: whether the principal only has to come again.
        self.is_replaced = False
        if limiter is None and self._get_prefixes:
            # Without a rate nothing comes before room, and nothing but the key's rights after it.
            self.check_room = admission.check  # type: ignore[method-assign]
            unrestricted = principal.unrestricted(GET)
            self.get_now = door.get_now if unrestricted else self._get_permitted  # type: ignore[method-assign]

    @property
    def name(self) -> str:
        """What the audit log calls whose it is."""
        return self.principal.name

    @property
    def administers(self) -> bool:
        """Whether it is an administrator's."""
        return self.is_known and self.principal.allows(ADMIN)

    # Before there is a command.

    def require(self, requirement: str, address: str) -> None:
        """Raise Unauthenticated or PermissionDenied unless the requirement of the policy's table is met.

        RateLimited, if it is for the metrics, which are no command, or is refused, and over the principal's rate.

        `address` is where the request comes from, for the audit log.
        """
        try:
            policy.admit(requirement, self.principal if self.is_known else None)
            if requirement == METRICS:
                self._take()
        except KvError as error:
            self._refused(self.name, "" if self.is_known else address, requirement, error)
            if isinstance(error, PermissionDenied):
                self._take_counted()
            raise

    def charge(self, size: int) -> None:
        """Charge one operation, and in any case `size` bytes, for a request that is about to be read; raises
        RateLimited. Otherwise a request that is refused for its content would cost nothing.
        """
        if self._limiter is not None:
            self._take_counted()
            self._limiter.spend(0, size, self._seconds())

    def give_back(self, size: int) -> None:
        """Undo `charge`: the request was good, and pays what it costs when it is submitted."""
        if self._limiter is not None:
            self._limiter.spend(-1, -size, self._seconds())

    def check_rate(self) -> None:
        """Raise RateLimited if there is nothing left to charge the next request to."""
        if self._limiter is not None:
            self._take_counted()
            self._limiter.spend(-1, 0, self._seconds())

    def before_reading(self, size: int) -> None:
        """`charge` for a request that is read at once, if there is room for it: raises Overloaded and Unavailable too.

        For what was read already, and is to be refused for what is in it, this comes before that is told.
        """
        if self._limiter is not None:
            self.charge(size)
        try:
            self.admission.check(size)
        except KvError:
            self.give_back(size)
            raise

    # The two ways through the door.

    def check_room(self) -> None:
        """To be called before `get_now`, which sees to it here: rights and rate come before room."""

    def get_now(self, key: bytes) -> tuple[bool, Found | None]:
        """See `Door.get_now`. Only what it answers is taken from the rate: else a Get comes next.

        Raises PermissionDenied, RateLimited, Overloaded and Unavailable too.
        """
        limiter = self._limiter
        now = 0.0
        if not self._get_prefixes:
            self.require(GET, "")
        if limiter is not None:
            now = self._seconds()
            self._admit(limiter.take(1, len(key), now))
        try:
            self.admission.check()
        except KvError:
            if limiter is not None:
                limiter.spend(-1, -len(key), now)
            raise
        if not key.startswith(self._get_prefixes):
            raise self._refusal(GET)
        known, found = self._door.get_now(key)
        if limiter is not None:
            if not known:
                limiter.spend(-1, -len(key), now)
            elif found is not None:
                limiter.spend(0, len(found.value), now)
        return known, found

    def complete_now(self, command: Get) -> bool:
        """Carry a Get out if memory has the answer, which takes no turn in the backend; whether it was.

        Raises what `submit` and `get_now` would.
        """
        self.check_room()
        known, found = self.get_now(command.key)
        if known:
            command.complete(found)
        return known

    def _get_permitted(self, key: bytes) -> tuple[bool, Found | None]:
        """`get_now` where there is no rate, after `check_room`."""
        if not key.startswith(self._get_prefixes):
            raise self._refusal(GET)
        return self._door.get_now(key)

    def submit(self, command: Command, done: Done, sizes: Sequence[int] | None = None) -> None:
        """Let a command in; `done` is called with it, on the reactor thread, when it is done, and must not raise.

        Raises Overloaded, Unavailable, RateLimited, PermissionDenied, QuotaExceeded and what is wrong with the command;
        then `done` is not called. `sizes` are what is at the keys of a write, for a quota, if that was looked up.
        """
        prefixes = self._prefixes[command.right]
        if not prefixes:
            self.require(command.right, "")
        admission = self.admission if command.is_limited else UNLIMITED
        limiter = self._limiter
        if limiter is not None:
            # A request counts as one operation at least: an empty batch is work too.
            self._admit(limiter.take(command.count or 1, command.size, self._seconds()))
        try:
            admission.check(command.size if command.takes_room else 0)
        except KvError:
            # What is refused for want of room has taken nothing from a rate.
            if limiter is not None:
                limiter.spend(-(command.count or 1), -command.size, self._seconds())
            raise
        if prefixes != _EVERYTHING and not command.permitted(prefixes):
            raise self._refusal(command.right)
        grown, weighing = None, self._weighing
        if weighing is not None and isinstance(command, WriteCommand):
            grown = weighing.growth(command, sizes)
            if grown is None:
                self._weigh_first(command, weighing, done)
                return
        if command.writes and self._written is not None:
            self._written(self.principal, command.right, command.keys)
        elif isinstance(command, ServerCommand):
            command.actor = self._actor
        if limiter is not None:
            done = self._paying(done)
        if weighing is None or grown is None:
            self._door.submit(command, admission, done)
        else:
            self._door.submit(command, admission, weighing.settling(grown, done))
            weighing.usage.add(grown)

    def _weigh_first(self, command: WriteCommand, weighing: Weighing, done: Done) -> None:
        """Submit it once more when it is known what is at its keys. Meanwhile it is charged, and counted in."""
        admission, size = self.admission, command.size
        if self._limiter is not None:
            self._limiter.spend(-(command.count or 1), -size, self._seconds())
        self.charge(size)
        try:
            admission.enter(size)
        except KvError:
            self.give_back(size)
            raise

        def looked_up(sizes: Sequence[int] | None, error: BaseException | None = None) -> None:
            # As with what is decoded first: nothing comes in between these and `submit`.
            self.give_back(size)
            admission.leave(1, size)
            try:
                if error is not None:
                    raise error
                self.submit(command, done, sizes)
            except Exception as refused:
                command.error = without_frames(refused)
                done(command)
            self._door.tell_settled()

        weighing.look_up(command, admission, looked_up, partial(looked_up, None))

    def _paying(self, done: Done) -> Done:
        """`done`, after the result has been taken from the rate."""
        limiter, seconds = self._limiter, self._seconds

        def paid(command: Command) -> None:
            if command.answered and limiter is not None:
                limiter.spend(0, command.answered, seconds())
            done(command)

        return paid

    def _take_counted(self) -> None:
        try:
            self._take()
        except KvError as error:
            self._refused(self.name, "", "rate", error)
            raise

    def _take(self) -> None:
        """Charge one operation for a request without a command."""
        if self._limiter is not None:
            buckets.admit(self._limiter.take(1, 0, self._seconds()), self._whose)

    def _admit(self, wait: float) -> None:
        if wait:
            try:
                buckets.admit(wait, self._whose)
            except KvError as error:
                self._refused(self.name, "", "rate", error)
                raise

    def _refusal(self, operation: str) -> PermissionDenied:
        error = PermissionDenied(_SENTENCES.get(operation, _OTHER))
        self._refused(self.name, "", operation, error)
        return error


class Sessions:
    """Those that are open. Any thread, but `withdraw`.

    Where addresses have rates, a principal has a session for each address that it comes from.
    """

    def __init__(
        self,
        door: Door,
        admission: Callable[[Principal], Admission],
        addresses: Addresses,
        refused: Refused,
        *,
        written: Written | None = None,
        seconds: Callable[[], float] = monotonic,
    ) -> None:
        """`admission` gives what the requests of one principal enter."""
        self._door = door
        self._admission = admission
        self._addresses = addresses
        self._refused = refused
        self._written = written
        self._seconds = seconds
        self._open: dict[tuple[Principal, str], Session] = {}
        # By the principals' names: one for all sessions, also for those of a token that has other rights now, as long
        # as there is any, or a request in it.
        self._admissions: WeakValueDictionary[str, Admission] = WeakValueDictionary()

    def __len__(self) -> int:
        """Those that hold."""
        return len(self._open)

    def of(self, principal: Principal, address: str) -> Session:
        """The principal's."""
        network = network_of(address) if self._addresses.limited else ""
        found = self._open.get((principal, network))
        if found is None:
            # Two threads may both make one; the first is everybody's.
            admission = self._admissions.setdefault(principal.name, self._admission(principal))
            made = Session(
                self._door, principal, admission, self._refused,
                written=self._written, limiter=self._limiter(principal, network), seconds=self._seconds,
                whose=self._whose(principal),
            )  # fmt: skip
            found = self._open.setdefault((principal, network), made)
        return found

    def nobody(self, admission: Admission) -> Session:
        """That of visitors who show nothing."""
        return Session(self._door, Principal(ANONYMOUS, ()), admission, self._refused, is_known=False)

    def withdraw(self, now: float, *, anew: bool) -> frozenset[Session]:
        """End the sessions of principals that are no longer valid, and the oldest of too many; `anew`: all.

        `now` is Unix time in seconds.
        """
        open_ = tuple(self._open)
        keys = [key for key in open_ if anew or now >= key[0].valid_until]
        keys += open_[: max(0, len(open_) - MAX_SESSIONS)]
        withdrawn = []
        for key in keys:
            found = self._open.pop(key, None)
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
        """Which rates a request may be over, for messages. Those who have others later have other sessions then."""
        whose = []
        if principal.limiter is not None:
            whose.append(f"the token (which may have {principal.limiter.rate})")
        if self._addresses.limited:
            whose.append(f"the address (which may have {self._addresses.rate})")
        return " or ".join(whose)
