"""The ten operations and the health check: the one seam beneath every transport.

Each call is timed and counted here, once, whichever way it came in. All methods block and may be called from any
thread; the Deferred form is `kvtwisted.threaded.facade`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Callable, Protocol, TypeVar

from .author import ANONYMOUS, Author
from .counter import Counter
from .errors import DeadlineExceeded, KvError, NearlyFull, StorageError
from .health import Health
from .pages import Page
from .records import Found
from .recovery import Recovery
from .store import Store
from .write import Change, Write

T = TypeVar("T")

#: Operation words, as in the metrics' names.
SET, GET, DELETE, SCAN = "set", "get", "delete", "scan"
OPERATIONS = (SET, GET, DELETE, SCAN)
_WRITES = (SET, DELETE)

#: Note [What a hot Get costs]: telling the recorder takes longer than a Get from the cache does. So such Gets are
#: counted by a plain integer, and every HOT_SAMPLE-th (a power of 2) is timed and stands for that many in the latency
#: histogram.
HOT_SAMPLE = 64
_NOT_SAMPLED = HOT_SAMPLE - 1
#: Durations that gather before they are counted, all at once: a tenth of the cost of one by one.
FOLD = 1024


class Recorder(Protocol):
    """What the operations tell whoever counts. Called from any thread; must not block or raise."""

    def operation(self, name: str, keys: int, seconds: float, failed: bool, calls: int = 1) -> None:
        """`name` (one of OPERATIONS) ran on `keys` keys for `seconds`; it stands for `calls` calls."""

    def durations(self, name: str) -> list[float]:
        """Where to append the seconds of each call of `name` on one key that succeeded: cheaper than `operation`.

        Call `fold` whenever FOLD of them have gathered.
        """

    def fold(self) -> None:
        """Count what has been appended to `durations`."""

    def config_update(self) -> None:
        """A configuration change was accepted."""

    def health_check(self, seconds: float) -> None:
        """A health check ran for `seconds`."""


class Configuration(Protocol):
    """What the operations need of the configuration. Thread-safe."""

    def show(self) -> str:
        """The whole configuration as JSON text, secrets redacted."""

    def update(self, document: Mapping[str, object], author: Author = ANONYMOUS) -> list[str]:
        """Apply and persist a change; returns the keys that need a restart.

        Raises InvalidConfig, PermissionDenied or StorageError.
        """

    def update_text(self, text: str, author: Author = ANONYMOUS) -> list[str]:
        """The same for JSON text."""


class Pending(Write):
    """A write that has begun and is not counted yet; see `Operations.begin_set` and its like."""

    __slots__ = ("keys", "name", "started")

    def __init__(self, name: str, started: float, changes: Sequence[Change], deadline: float) -> None:
        Write.__init__(self, changes, deadline)
        self.name = name
        self.started = started
        self.keys = len(changes)


class Operations:
    """Store and configuration, with every call counted.

    `deadline` (a time of `time.monotonic`) ends waiting: a call that starts after it, or would wait past it, raises
    DeadlineExceeded or Overloaded.
    """

    def __init__(self, store: Store, configuration: Configuration, recorder: Recorder, health: Health) -> None:
        self._store = store
        self._configuration = configuration
        self._recorder = recorder
        self._health = health
        #: Knows whether writes fail, and tries to get over it.
        self.recovery = Recovery(store.upkeep, health)
        self._hot = store.hot
        self._overdue = Counter()
        self._hot_gets = Counter()
        self._count_hot = self._hot_gets.advance
        self._set_durations, self._get_durations = recorder.durations(SET), recorder.durations(GET)

    @property
    def overdue(self) -> int:
        """Requests that were given up since their time had run out."""
        return self._overdue.value

    @property
    def hot_gets(self) -> int:
        """Gets answered from the hot cache here, which the recorder is not told of one by one."""
        return self._hot_gets.value

    def set(self, key: bytes, value: bytes, ttl: int = 0, *, deadline: float = math.inf) -> None:
        """Store one value; see `Store.set`."""
        started = monotonic()
        try:
            if started > deadline:
                raise _overdue()
            self._store.set(key, value, ttl, deadline)
        except BaseException as error:
            self._failed(SET, 1, started, error)
            raise
        durations = self._set_durations
        durations.append(monotonic() - started)
        if len(durations) >= FOLD:
            self._recorder.fold()

    def get(self, key: bytes, *, deadline: float = math.inf) -> Found | None:
        """Read one value; see `Store.get`."""
        entry = self._hot(key)
        if entry is not None:
            answer = entry.answer
            if answer is not None:
                entry.used = True
                if not self._count_hot() & _NOT_SAMPLED:
                    self._time_hot_get(key)
                return answer
        started = monotonic()
        try:
            if started > deadline:
                raise _overdue()
            found = self._store.fetch(key, entry)
        except BaseException as error:
            self._failed(GET, 1, started, error)
            raise
        durations = self._get_durations
        durations.append(monotonic() - started)
        if len(durations) >= FOLD:
            self._recorder.fold()
        return found

    def get_now(self, key: bytes) -> tuple[bool, Found | None]:
        """Read one value if memory has it, without blocking; else (False, None), and `get` is to be called."""
        entry = self._hot(key)
        if entry is not None:
            answer = entry.answer
            if answer is not None:
                entry.used = True
                if not self._count_hot() & _NOT_SAMPLED:
                    self._time_hot_get(key)
                return True, answer
        started = monotonic()
        try:
            known, found = self._store.get_now(key)
        except BaseException as error:
            self._failed(GET, 1, started, error)
            raise
        if known:
            durations = self._get_durations
            durations.append(monotonic() - started)
            if len(durations) >= FOLD:
                self._recorder.fold()
        return known, found

    def delete(self, key: bytes, *, deadline: float = math.inf) -> None:
        """Remove one key; see `Store.delete`."""
        self._counted(DELETE, 1, deadline, lambda: self._store.delete(key, deadline=deadline))

    def scan(
        self,
        prefix: bytes,
        *,
        cursor: bytes = b"",
        limit: int = 0,
        keys_only: bool = False,
        budget: int,
        deadline: float = math.inf,
    ) -> Page:
        """Read one page of keys or pairs; see `Store.scan`."""
        return self._counted(
            SCAN, 1, deadline,
            lambda: self._store.scan(
                prefix, cursor=cursor, limit=limit, keys_only=keys_only, budget=budget, deadline=deadline
            ),
        )  # fmt: skip

    def mset(self, pairs: Mapping[bytes, bytes], ttl: int = 0, *, deadline: float = math.inf) -> None:
        """Store many values atomically; see `Store.mset`."""
        self._counted(SET, len(pairs), deadline, lambda: self._store.mset(pairs, ttl, deadline=deadline))

    def mget(self, keys: Sequence[bytes], *, budget: int, deadline: float = math.inf) -> dict[bytes, bytes]:
        """Read many values from one view; see `Store.mget`."""
        return self._counted(GET, len(keys), deadline, lambda: self._store.mget(keys, budget=budget))

    def mdelete(self, keys: Sequence[bytes], *, deadline: float = math.inf) -> None:
        """Remove many keys atomically; see `Store.mdelete`."""
        self._counted(DELETE, len(keys), deadline, lambda: self._store.mdelete(keys, deadline=deadline))

    def get_config(self) -> str:
        """The configuration as JSON text, secrets redacted."""
        return self._configuration.show()

    def update_config(self, document: Mapping[str, object], author: Author = ANONYMOUS) -> list[str]:
        """Change the configuration; returns the keys that need a restart."""
        restart_required = self._configuration.update(document, author)
        self._recorder.config_update()
        return restart_required

    def update_config_text(self, text: str, author: Author = ANONYMOUS) -> list[str]:
        """Change the configuration by JSON text; returns the keys that need a restart."""
        restart_required = self._configuration.update_text(text, author)
        self._recorder.config_update()
        return restart_required

    def health(self) -> str | None:
        """Why the server cannot serve, or None: the known conditions, and a real read of the storage."""
        started = monotonic()
        reason = self._health.reason()
        if reason is None:
            try:
                self._store.upkeep.check()
            except KvError as error:
                reason = str(error)
        self._recorder.health_check(monotonic() - started)
        return reason

    # Writes in two steps, for a caller that gathers them: begin each, then settle all at once.

    def begin_set(self, key: bytes, value: bytes, ttl: int = 0, *, deadline: float = math.inf) -> Pending:
        """Check a `set`; what is wrong with it is raised, and counted."""
        started = monotonic()
        try:
            if started > deadline:
                raise _overdue()
            return Pending(SET, started, self._store.set_changes(key, value, ttl), deadline)
        except BaseException as error:
            self._failed(SET, 1, started, error)
            raise

    def begin_delete(self, key: bytes, *, deadline: float = math.inf) -> Pending:
        """Check a `delete`."""
        return self._begin(DELETE, 1, deadline, lambda: self._store.delete_changes([key]))

    def begin_mset(self, pairs: Mapping[bytes, bytes], ttl: int = 0, *, deadline: float = math.inf) -> Pending:
        """Check an `mset`."""
        return self._begin(SET, len(pairs), deadline, lambda: self._store.mset_changes(pairs, ttl))

    def begin_mdelete(self, keys: Sequence[bytes], *, deadline: float = math.inf) -> Pending:
        """Check an `mdelete`."""
        return self._begin(DELETE, len(keys), deadline, lambda: self._store.mdelete_changes(keys))

    def needs_files(self, pending: Pending) -> bool:
        """Whether it writes or replaces a large value, which takes long: such a write had better go by itself."""
        return self._store.needs_files(pending)

    def settle_now(self, pending: Sequence[Pending]) -> bool:
        """Write all that is pending as one batch, each atomic, if that needs no waiting; False when it does.

        Then nothing was done, and `settle` is to be called. Any thread; never blocks.
        """
        if not self._store.try_now(pending):
            return False
        self._count(pending)
        return True

    def settle(self, pending: Sequence[Pending]) -> None:
        """Write all that is pending, each atomic, as one batch where possible. Blocks; see `error` of each after."""
        self._store.write_all(pending)
        self._count(pending)

    def _begin(self, name: str, keys: int, deadline: float, changes: Callable[[], Sequence[Change]]) -> Pending:
        started = monotonic()
        try:
            if started > deadline:
                raise _overdue()
            return Pending(name, started, changes(), deadline)
        except BaseException as error:
            self._failed(name, keys, started, error)
            raise

    def _count(self, pending: Sequence[Pending]) -> None:
        now = monotonic()
        sets = self._set_durations
        for one in pending:
            if one.error is not None:
                self._failed(one.name, one.keys, one.started, one.error)
            elif one.keys == 1 and one.name == SET:
                sets.append(now - one.started)
            else:
                self._recorder.operation(one.name, one.keys, now - one.started, False)
        if len(sets) >= FOLD:
            self._recorder.fold()

    def _time_hot_get(self, key: bytes) -> None:
        started = monotonic()
        self._hot(key)
        self._recorder.operation(GET, 0, monotonic() - started, False, HOT_SAMPLE)

    def _counted(self, name: str, keys: int, deadline: float, call: Callable[[], T]) -> T:
        started = monotonic()
        try:
            if started > deadline:
                raise _overdue()
            result = call()
        except BaseException as error:
            self._failed(name, keys, started, error)
            raise
        self._recorder.operation(name, keys, monotonic() - started, False)
        return result

    def _failed(self, name: str, keys: int, started: float, error: BaseException) -> None:
        self._recorder.operation(name, keys, monotonic() - started, True)
        if isinstance(error, DeadlineExceeded):
            self._overdue.advance()
        if name in _WRITES and isinstance(error, StorageError) and not isinstance(error, NearlyFull):
            self.recovery.write_failed(error)


def _overdue() -> DeadlineExceeded:
    return DeadlineExceeded("the request's time ran out before it was started")
