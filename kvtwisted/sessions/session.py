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
from typing import Any, Callable

from ..commands.command import Actor, Command, ServerCommand, WriteCommand
from ..commands.decisions import Decisions
from ..commands.gathered import Told
from ..commands.get import Found, Get
from ..commands.sets import Sets
from ..commands.streams import StreamCommand
from ..core.errors import KvError, PermissionDenied, Unauthenticated, Unavailable, without_frames
from . import buckets, policy
from .admission import UNLIMITED, Admission, Share
from .buckets import Budget, Limiter
from .door import GATHERED_SETS, Done, Door
from .grants import ADMIN, DELETE, GET, METRICS, OPERATIONS, SCAN, SET, Principal
from .weighing import Weighing

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
        limiter: Limiter | Budget | None = None,
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
        #: Operations that it may do anywhere: nobody has to look at the keys.
        self._anywhere = frozenset(name for name, prefixes in self._prefixes.items() if prefixes == _EVERYTHING)
        #: Whether nobody has to look at any keys.
        self._has_all = self._anywhere.issuperset((GET, SET, DELETE, SCAN))
        usage, measures = principal.usage, door.measures
        self._weighing = None if usage is None or measures is None else Weighing(usage, measures)
        #: What its streams enter, by their capability.
        self._places: dict[str, Admission] = {}
        #: Of one that was withdrawn: whether the principal only has to come again.
        self.is_replaced = False
        if limiter is None and self._get_prefixes:
            # Without a rate nothing comes before room, and nothing but the key's rights after it.
            self.check_room = admission.check  # type: ignore[method-assign]
            unrestricted = principal.unrestricted(GET)
            self.get_now = door.get_now if unrestricted else self._get_permitted  # type: ignore[method-assign]
        #: Whether its Sets may go together, with `gather`: see Note [Sets go together].
        self.gathers = limiter is None and written is None and self._weighing is None
        self._set_prefixes = None if SET in self._anywhere else self._prefixes[SET]
        self._stores_and_reads = (
            None if self._anywhere.issuperset((SET, GET)) else (self._prefixes[SET], self._prefixes[GET])
        )
        #: Its Sets that gather now, and its commands that decide: one of both.
        self.gathering: Sets | None = None
        self.deciding: Decisions | None = None

    @property
    def name(self) -> str:
        """What the audit log calls whose it is."""
        return self.principal.name

    @property
    def administers(self) -> bool:
        """Whether it is an administrator's."""
        return self.is_known and self.principal.allows(ADMIN)

    @property
    def owner(self) -> str | None:
        """The principal that its streams count for; None at an open gate, where all are one principal."""
        return self.principal.name if isinstance(self.admission, Share) and self.is_known else None

    # Before there is a command.

    def require(self, requirement: str, address: str) -> None:
        """Raise Unauthenticated or PermissionDenied unless the requirement of the policy's table is met.

        RateLimited, if it is for the metrics, which are no command, or is refused, and over the principal's rate.

        `address` is where the request comes from, for the audit log.
        """
        if self.is_known and self._prefixes.get(requirement) and requirement != METRICS:
            return
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
        self._take_counted()
        self.give_back(-size, 0)

    def give_back(self, size: int, operations: int = 1) -> None:
        """Undo `charge`: the request was good, and pays what it costs when it is submitted."""
        if self._limiter is not None:
            self._limiter.spend(-operations, -size, self._seconds())

    def check_rate(self) -> None:
        """Raise RateLimited if there is nothing left to charge the next request to."""
        self._take_counted()
        self.give_back(0)

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
        if not self._get_prefixes:
            self.require(GET, "")
        limiter, now = self._limiter, self._seconds()
        assert limiter is not None  # noqa: S101 - those without a rate have another `get_now`
        self._admit(limiter.take(1, len(key), now))
        try:
            self.admission.check()
        except KvError:
            limiter.spend(-1, -len(key), now)
            raise
        known, found = self._get_permitted(key)
        if not known:
            limiter.spend(-1, -len(key), now)
        elif found is not None:
            limiter.spend(0, len(found.value), now)
        return known, found

    def complete_now(self, command: Get) -> bool:
        """Carry a Get out if memory has the answer, which takes no turn in the backend; whether it was.

        A large value is not digested here. Raises what `submit` and `get_now` would.
        """
        if command.digests and self._door.is_large(command.key):
            return False
        self.check_room()
        known, found = self.get_now(command.key)
        if known:
            command.complete(found)
        return known

    def answer(self, command: Command, done: Done) -> None:
        """`submit`; a Get that memory can answer is done when this returns."""
        if isinstance(command, Get) and self.complete_now(command):
            done(command)
        else:
            self.submit(command, done)

    def _get_permitted(self, key: bytes) -> tuple[bool, Found | None]:
        """`get_now` where there is no rate, after `check_room`; and the end of it where there is one."""
        if not key.startswith(self._get_prefixes):
            raise self._refusal(GET)
        return self._door.get_now(key)

    def submit(self, command: Command, done: Done, sizes: Sequence[int] | None = None) -> None:
        """Let a command in; `done` is called with it, on the reactor thread, when it is done, and must not raise.

        Raises Overloaded, Unavailable, RateLimited, PermissionDenied, QuotaExceeded and what is wrong with the command;
        then `done` is not called. `sizes` are what is at the keys of a write, for a quota, if that was looked up.
        """
        if self._door.gathering is not None:
            self._door.enter()
        right = command.right
        prefixes = self._prefixes[right]
        if not prefixes:
            self.require(right, "")
        admission = self.admission if command.is_limited else self._aside(command)
        limiter = self._limiter
        if limiter is not None:
            # A request counts as one operation at least: an empty batch is work too.
            self._admit(limiter.take(command.count or 1, command.size, self._seconds()))
        held = command.size if command.takes_room else 0
        try:
            admission.enter(held)
        except KvError:
            # What is refused for want of room has taken nothing from a rate.
            self.give_back(command.size, command.count or 1)
            raise
        try:
            if not self._has_all:
                if right not in self._anywhere and not command.permitted(prefixes):
                    raise self._refusal(right)
                for other, keys in command.needs:
                    if not all(key.startswith(self._prefixes[other]) for key in keys):
                        raise self._refusal(other)
            grown, weighing = None, self._weighing
            if weighing is not None and isinstance(command, WriteCommand):
                grown = weighing.growth(command, sizes)
                if grown is None:
                    self._weigh_first(command, weighing, done)
                    return
            if self._written is not None and command.writes:
                for operation, keys in command.written:
                    self._written(self.principal, operation, keys)
            elif isinstance(command, ServerCommand):
                command.actor = self._actor
            elif isinstance(command, StreamCommand):
                done = self._open(command, done)
            if limiter is not None:
                done = self._paying(done)
            if weighing is None or grown is None:
                self._door.submit(command, admission, done)
            else:
                self._door.submit(command, admission, weighing.settling(grown, done))
                weighing.usage.add(grown)
        except BaseException:
            if isinstance(command, StreamCommand):
                self._door.streams.closed(command, self)
            admission.leave(1, held)
            raise

    # Streams.

    def withdraw(self) -> None:
        """It was withdrawn: its streams end."""
        refusal: KvError = Unauthenticated("the token or certificate holds no longer")
        if self.is_replaced:
            # Clients open them again.
            refusal = Unavailable("what the token may do has changed: call again")
        self._door.streams.withdraw(self, refusal)

    def _aside(self, command: Command) -> Admission:
        """What a command enters that is not among the requests which are limited."""
        if not isinstance(command, StreamCommand):
            return UNLIMITED
        places = self._places.get(command.capability)
        if places is None:
            places = self._places[command.capability] = self._door.streams.places(command, self.owner)
        return places

    def _open(self, command: StreamCommand, done: Done) -> Done:
        """See to it that a stream ends with its session, and is paid for part by part; what is to be `done` at its
        end."""
        streams, limiter = self._door.streams, self._limiter
        streams.opened(command, self)
        if limiter is not None:
            command.hold = self._hold
            command.part = partial(self._paid, command, command.part)

        def over(settled: Command) -> None:
            command.is_over = True
            streams.closed(command, self)
            if command.refusal is not None:
                command.error = command.refusal
            command.answered = 0  # it is paid for
            done(settled)

        return over

    def _hold(self, command: StreamCommand) -> bool:
        """Charge an operation for the next part, or have it come once there is something left of the rate."""
        assert self._limiter is not None  # noqa: S101 - only those that have one are held
        wait = self._limiter.take(1, 0, self._seconds())
        if wait:
            self._door.later(wait, command.more)
        return bool(wait)

    def _paid(self, command: StreamCommand, part: Callable[[Any], object], encoded: Any) -> None:
        """Tell a part, after it has been taken from the rate. The first of its entries was paid before."""
        assert self._limiter is not None  # noqa: S101 - as above
        self._limiter.spend(max(0, command.entries - 1), command.answered, self._seconds())
        command.entries = command.answered = 0
        part(encoded)

    def gather(self, waiter: Any, seconds: float, told: Told) -> Sets:
        """What Sets of `waiter` are to be appended to from now on, where it `gathers`: those that have so many seconds.

        Until `gathering` is another one, or another one's. `told` is called when they are done, or refused.
        """
        sets = self.gathering
        if sets is None or sets.count >= GATHERED_SETS:
            sets = self.gathering = self._door.begin_sets(self.admission, seconds, self._enter)
        sets.join(waiter, told)
        return sets

    def gather_decisions(self, waiter: Any, seconds: float, told: Told) -> Decisions | None:
        """The same for conditional Sets, Touches and Increments, until `deciding` is another one, or another one's.

        None where the backend does not know those: submit them, to be told so.
        """
        deciding = self.deciding
        if deciding is None or len(deciding.mutations) >= GATHERED_SETS:
            deciding = self.deciding = self._door.begin_decisions(self.admission, seconds, self._enter_decisions)
            if deciding is None:
                return None
        deciding.join(waiter, told)
        return deciding

    def _enter(self, sets: Sets) -> None:
        """Submit Sets that have gathered: together, or else one by one."""
        self.gathering = None
        sets.seal()
        prefixes = self._set_prefixes
        is_good = sets.is_good and (prefixes is None or sets.permitted(prefixes))
        if is_good and self.admission.enter_all(sets.count, sets.size):
            self._door.submit_sets(sets)
        else:
            self._submit_each(sets.singles())

    def _enter_decisions(self, deciding: Decisions) -> None:
        """The same for commands that decide."""
        self.deciding = None
        deciding.seal()
        is_good = deciding.is_good and (
            self._stores_and_reads is None or all(map(deciding.permitted, self._stores_and_reads))
        )
        if is_good and self.admission.enter_all(deciding.count, deciding.size):
            self._door.submit_sets(deciding)
        else:
            self._submit_each(deciding.singles())

    def _submit_each(self, singles: Sequence[WriteCommand]) -> None:
        for single in singles:
            done = single.done
            try:
                self.submit(single, done)
            except Exception as refused:
                single.error = without_frames(refused)
                done(single)
        self._door.refused()

    def _weigh_first(self, command: WriteCommand, weighing: Weighing, done: Done) -> None:
        """Submit it once more when it is known what is at its keys. Until then it is paid for, and counted in."""

        def looked_up(sizes: Sequence[int] | BaseException | None) -> None:
            # As with what is decoded first: nothing comes in between these and `submit`.
            self.give_back(command.size, command.count or 1)
            self.admission.leave(1, command.size)
            try:
                if isinstance(sizes, BaseException):
                    raise sizes
                self.submit(command, done, sizes)
            except Exception as refused:
                command.error = without_frames(refused)
                done(command)
            self._door.tell_settled()

        weighing.look_up(command, self.admission, looked_up)

    def _paying(self, done: Done) -> Done:
        """`done`, after the result has been taken from the rate."""
        limiter, seconds = self._limiter, self._seconds

        def paid(command: Command) -> None:
            if limiter is not None and (command.answered or command.charged):
                limiter.spend(max(0, command.charged - 1), command.answered, seconds())
            done(command)

        return paid

    def _take_counted(self) -> None:
        if self._limiter is not None:
            self._admit(self._limiter.take(1, 0, self._seconds()))

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
