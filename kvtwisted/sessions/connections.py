"""How many connections there may be, in all and from one address, on all listeners together.

Note [Room for connections]: a connection takes a file descriptor, and so do RocksDB's table files and logs. When none
is left, RocksDB cannot write, which is worse than a refused connection. So the descriptors are divided before the
start: at most a quarter to table files, RESERVED to all else that the server opens, the rest to connections.

Note [Idle connections are closed first]: idle connections cost their clients nothing, and two addresses can fill all
slots with them. So when all slots are taken, the least useful connections are closed for a newcomer: idle ones, first
those of unknown clients, of the address with most connections, idle for longest. A known client's is closed only for an
address that has fewer, and not while it may be between two requests. Clients with pools connect again by themselves; a
flood closes its own connections.

Note [Reserved for administrators]: if no connection can be closed, ADMINISTRATORS more are let in on trial. One that
shows an administrator's token or certificate stays; others are refused as soon as they show something else, or nothing
for TRIAL_SECONDS. When these slots are taken too, a newcomer gets the slot of a connection that has not shown anything
yet: the first of the address with most of them. So neither a flood nor a limit that is too low can keep administrators
out.
"""

from __future__ import annotations

import resource
from collections import Counter
from collections.abc import Iterable
from time import monotonic
from typing import Callable, NamedTuple, Protocol

from . import shares
from .buckets import network_of
from .shares import Shares, three_quarters

#: Descriptors for logs, value files, listening sockets, the reactor, and connections that are being refused.
RESERVED = 128
#: Why a connection was refused: too many in all, or from its address.
IN_ALL, PER_ADDRESS = "all", "address"
#: Let in on trial: see Note [Reserved for administrators].
ON_TRIAL = "trial"
#: Slots for administrators, and seconds to show a token in.
ADMINISTRATORS, TRIAL_SECONDS = 8, 2.0
#: Seconds that a connection must have idled to be closed: of an unknown and of a known client.
UNKNOWN_IDLE_SECONDS, KNOWN_IDLE_SECONDS = 1.0, 5.0
#: Seconds until the next search, when no connection could be closed.
_PAUSE_SECONDS = 0.25
#: The part of all connections, of unknown clients, that is closed at once: a flood must not cost a search for each
#: newcomer.
_AT_ONCE = 64


def descriptors() -> int:
    """How many files this process may have open (the soft RLIMIT_NOFILE); 2**20 where there is no limit."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 20 if soft == resource.RLIM_INFINITY else soft


def table_files(wanted: int, limit: int) -> int:
    """How many table files RocksDB may keep open when `wanted` were configured and the process may open `limit` files.

    -1 (all of them) stays -1, since RocksDB then opens what it finds.
    """
    return wanted if wanted < 0 else min(wanted, max(limit // 4, 16))


def room(wanted_files: int, limit: int) -> int:
    """How many connections there is room for besides the table files. See Note [Room for connections].

    At least a quarter of `limit`, also where that is too small for all.
    """
    files = limit // 2 if wanted_files < 0 else table_files(wanted_files, limit)
    return max(limit - files - RESERVED, limit // 4)


class Member(Protocol):
    """A connection that has entered."""

    address: str

    def idle_seconds(self) -> float | None:
        """For how long it has had nothing under way; None: it has."""

    def is_of_somebody(self) -> bool:
        """Whether somebody known has asked something on it."""

    def make_way(self) -> None:
        """Close at once, in the orderly way."""

    def abort(self) -> None:
        """Close at once."""


class _Trial(NamedTuple):
    transport: str
    network: str


class Connections:
    """Counts connections in and out. Reactor thread, or any other single one; `open` may be read on any."""

    def __init__(
        self,
        max_connections: Callable[[], int],
        max_per_address: Callable[[], int],
        room: int,
        refused: Callable[[str, str], None] = lambda transport, reason: None,
        *,
        administrators: int = 0,
        seconds: Callable[[], float] = monotonic,
    ) -> None:
        """The two limits are asked again for each connection; 0 stands for `room`, and for three quarters of the first.

        What an address counts as is said by `buckets.network_of`. `refused` is told the transport and the reason
        (IN_ALL, PER_ADDRESS) of each refusal. `administrators` is how many may be let in on trial, or stay so, at once.
        """
        self._max_connections = max_connections
        self._max_per_address = max_per_address
        self._room = room
        self._refused = refused
        self._counts = Shares()
        self._administrators = administrators
        self._seconds = seconds
        self._members: list[Callable[[], Iterable[Member]]] = []
        # Those that are being closed; they no longer count.
        self._leaving: set[Member] = set()
        # Those in slots for administrators: that have to show yet that they are, the first comers first; and that are.
        self._trials: dict[Member, _Trial] = {}
        self._passed: set[Member] = set()
        self._look_at = 0.0
        #: Connections closed to make room for others, since the start.
        self.made_way = 0
        #: Connections that have left, since the start.
        self.ended = 0

    @property
    def open(self) -> int:
        """Connections that have entered and not left."""
        return self._counts.open + len(self._trials) + len(self._passed)

    @property
    def limit(self) -> int:
        """Connections in all that are allowed just now."""
        return self._max_connections() or self._room

    @property
    def limit_per_address(self) -> int:
        """Connections from one address that are allowed just now."""
        return self._max_per_address() or three_quarters(self.limit)

    def of(self, members: Callable[[], Iterable[Member]]) -> None:
        """Those that `members` gives may be closed to make room."""
        self._members.append(members)

    def enter(self, transport: str, address: str) -> str | None:
        """Count a connection in, or say why it is refused. One that is counted in must `leave`, with that address.

        ON_TRIAL: it is not counted yet, but `try_out` counts it in, which must be called next.
        """
        network = network_of(address)
        refused = self._counts.enter(network, self.limit, self.limit_per_address)
        if refused == shares.IN_ALL and self._make_room(network):
            refused = self._counts.enter(network, self.limit, self.limit_per_address)
        if refused is None:
            return None
        if len(self._trials) + len(self._passed) < self._administrators or self._end_a_trial(network):
            return ON_TRIAL
        return self._refuse(transport, refused)

    def try_out(self, member: Member, transport: str) -> None:
        """Let it in on trial: it has TRIAL_SECONDS to show that it is an administrator's (`passed`), else it is
        `refused_on_trial`. Others may get its slot meanwhile.
        """
        self._trials[member] = _Trial(transport, network_of(member.address))

    def passed(self, member: Member) -> None:
        """One that was on trial is an administrator's, and stays."""
        if self._trials.pop(member, None) is not None:
            self._passed.add(member)

    def refused_on_trial(self, transport: str) -> str:
        """One that is on trial is no administrator's; the reason (IN_ALL, PER_ADDRESS) to give."""
        return self._refuse(transport, shares.IN_ALL if self._counts.open >= self.limit else shares.OF_OWNER)

    def leave(self, address: str, member: Member | None = None) -> None:
        """Count a connection out."""
        self.ended += 1
        if member is not None and (member in self._leaving or member in self._passed or member in self._trials):
            self._leaving.discard(member)
            self._passed.discard(member)
            self._trials.pop(member, None)
        else:
            self._counts.leave(network_of(address))

    def _end_a_trial(self, newcomer: str) -> bool:
        """Close one that is on trial, for a newcomer from network `newcomer`. See Note [Reserved for
        administrators]."""
        if not self._trials:
            return False
        counts = Counter(trial.network for trial in self._trials.values())
        counts[newcomer] += 1

        def weight(member: Member) -> tuple[int, bool]:
            network = self._trials[member].network
            return counts[network], network == newcomer

        gone = max(self._trials, key=weight)  # of equals the first, which came first
        trial = self._trials.pop(gone)
        self._leaving.add(gone)
        self.refused_on_trial(trial.transport)
        gone.abort()
        return True

    def _refuse(self, transport: str, refused: str) -> str:
        reason = IN_ALL if refused == shares.IN_ALL else PER_ADDRESS
        self._refused(transport, reason)
        return reason

    def _make_room(self, newcomer: str) -> bool:
        """Close connections for a newcomer from network `newcomer`. See Note [Idle connections are closed first]."""
        now = self._seconds()
        if now < self._look_at:
            return False
        found: list[tuple[bool, int, float, int, Member]] = []
        for members in self._members:
            for member in members():
                if member in self._leaving or member in self._trials or member in self._passed:
                    continue  # it has none of the slots that are missing
                idle = member.idle_seconds()
                if idle is None or idle < UNKNOWN_IDLE_SECONDS:
                    continue
                network, known = network_of(member.address), member.is_of_somebody()
                count = self._counts.of(network)
                if known and (idle < KNOWN_IDLE_SECONDS or count <= self._counts.of(newcomer) + 1):
                    continue
                found.append((known, -count, -idle, len(found), member))
        if not found:
            self._look_at = now + _PAUSE_SECONDS
            return False
        found.sort()
        at_once = max(1, min(sum(not known for known, *_ in found), self.limit // _AT_ONCE))
        for *_, member in found[:at_once]:
            self._leaving.add(member)
            self._counts.leave(network_of(member.address))
            self.made_way += 1
            member.make_way()
        return True
