"""Writes that arrive together go in together: one batch for each turn of the reactor, and one fsync for each batch.

A group is written on the reactor thread if that needs no waiting and does not take long. Otherwise a pool thread does
it, and what arrives meanwhile gathers for the next group, so that one group at a time waits for an fsync or a stall.

Source: RocksDB's own group commit, https://github.com/facebook/rocksdb/wiki/WAL-Performance, which merges only writers
that are threads.
"""

from __future__ import annotations

from typing import Callable, Optional

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from ..core.admission import Admission
from ..core.operations import Operations, Pending
from .pool import caught

#: What a group may hold to be written on the reactor thread: some milliseconds' work.
INLINE_KEYS, INLINE_BYTES = 1024, 1_048_576

#: Runs a function in a pool thread.
Defer = Callable[[Callable[[], None]], "Deferred[None]"]
#: Told when a write is settled: why it failed, or None.
Done = Callable[[Optional[BaseException]], None]
#: Writes, who waits for them, and where they are counted out.
Group = list["tuple[Pending, Done, Admission]"]


class GroupCommit:
    """Gathers writes that have begun, and settles them. Reactor thread only.

    It holds no more than what the caller admits.
    """

    def __init__(self, reactor: IReactorTime, operations: Operations, defer: Defer) -> None:
        self._reactor = reactor
        self._operations = operations
        self._defer = defer
        self._gathered: Group = []
        self._busy = False
        #: Called after each group, when all who waited for it have been told.
        self.settled: Callable[[], None] = lambda: None

    @property
    def waiting(self) -> int:
        """Writes that nobody has taken up yet."""
        return len(self._gathered)

    def add(self, pending: Pending, done: Done, admission: Admission) -> None:
        """Write it with those of the same turn; `done`, which must not raise, is called on the reactor thread.

        It leaves `admission` when it is settled, on the thread that settles it.
        """
        self._gathered.append((pending, done, admission))
        if len(self._gathered) == 1 and not self._busy:
            self._reactor.callLater(0, self._commit)

    def _commit(self) -> None:
        group, self._gathered = self._gathered, []
        writes = [pending for pending, _, _ in group]
        quick = (
            sum([pending.keys for pending in writes]) <= INLINE_KEYS
            and sum([pending.size for pending in writes]) <= INLINE_BYTES
        )
        try:
            settled = quick and self._operations.settle_now(writes)
        except Exception:
            _leave(group)
            self._fail(group, caught())
            return
        if settled:
            _leave(group)
            self._tell(group)
            return
        self._busy = True
        waiting = self._defer(lambda: self._settle(group, writes))
        waiting.addCallbacks(lambda _: self._tell(group), lambda failure: self._fail(group, failure))
        waiting.addBoth(self._go_on)

    def _settle(self, group: Group, writes: list[Pending]) -> None:
        """In a pool thread."""
        try:
            self._operations.settle(writes)
        finally:
            _leave(group)

    def _go_on(self, _: object) -> None:
        self._busy = False
        if self._gathered:
            self._commit()

    def _tell(self, group: Group) -> None:
        for pending, done, _ in group:
            done(pending.error)
        self.settled()

    def _fail(self, group: Group, failure: Failure) -> None:
        """The writing itself broke: nobody knows what was done."""
        for _, done, _ in group:
            done(failure.value)
        self.settled()


def _leave(group: Group) -> None:
    # Each is told once.
    left: dict[Admission, list[int]] = {}
    for pending, _, admission in group:
        left.setdefault(admission, []).append(pending.size)
    for admission, sizes in left.items():
        admission.leave(len(sizes), sum(sizes))
