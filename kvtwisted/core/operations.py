"""The ten operations and the health check: the one seam beneath every transport.

Each call is timed and counted here, once, whichever way it came in. All methods block and may be called from any
thread; the Deferred form is `kvtwisted.threaded.facade`.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Mapping, Sequence
from typing import Callable, Protocol, TypeVar

from .errors import DeadlineExceeded, KvError, StorageError
from .health import Health
from .records import Found
from .store import Page, Store

T = TypeVar("T")

#: Operation words, as in the metrics' names.
SET, GET, DELETE, SCAN = "set", "get", "delete", "scan"
OPERATIONS = (SET, GET, DELETE, SCAN)

#: Note [What a hot Get costs]: telling the recorder takes longer than a Get from the cache does. So such Gets are
#: counted by a plain integer, and every HOT_SAMPLE-th is timed and stands for that many in the latency histogram.
HOT_SAMPLE = 64

_CONDITION = "storage"


class Recorder(Protocol):
    """What the operations tell whoever counts. Called from any thread; must not block or raise."""

    def operation(self, name: str, keys: int, seconds: float, failed: bool, calls: int = 1) -> None:
        """`name` (one of OPERATIONS) ran on `keys` keys for `seconds`; it stands for `calls` calls."""

    def config_update(self) -> None:
        """A configuration change was accepted."""

    def health_check(self, seconds: float) -> None:
        """A health check ran for `seconds`."""


class Configuration(Protocol):
    """What the operations need of the configuration. Thread-safe."""

    def show(self) -> str:
        """The whole configuration as JSON text, secrets redacted."""

    def update(self, document: Mapping[str, object]) -> list[str]:
        """Apply and persist a change; returns the keys that need a restart. Raises InvalidConfig or StorageError."""

    def update_text(self, text: str) -> list[str]:
        """The same for JSON text."""


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
        self._hot = store.hot
        #: Gets answered from the hot cache here, which the recorder is not told of one by one.
        self.hot_gets = 0
        self._next_hot = itertools.count(1).__next__

    def set(self, key: bytes, value: bytes, ttl: int = 0, *, deadline: float = math.inf) -> None:
        """Store one value; see `Store.set`."""
        self._write(SET, 1, deadline, lambda: self._store.set(key, value, ttl, deadline=deadline))

    def get(self, key: bytes, *, deadline: float = math.inf) -> Found | None:
        """Read one value; see `Store.get`."""
        entry = self._hot(key)
        if entry is None or entry.expires_at_ms:
            return self._counted(GET, 1, deadline, lambda: self._store.get(key))
        entry.used = True
        # One C call: `+= 1` would lose counts between threads before Python 3.10.
        self.hot_gets = count = self._next_hot()
        if count % HOT_SAMPLE == 0:
            self._time_hot_get(key)
        return entry.found

    def delete(self, key: bytes, *, deadline: float = math.inf) -> None:
        """Remove one key; see `Store.delete`."""
        self._write(DELETE, 1, deadline, lambda: self._store.delete(key, deadline=deadline))

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
        self._write(SET, len(pairs), deadline, lambda: self._store.mset(pairs, ttl, deadline=deadline))

    def mget(self, keys: Sequence[bytes], *, budget: int, deadline: float = math.inf) -> dict[bytes, bytes]:
        """Read many values from one view; see `Store.mget`."""
        return self._counted(GET, len(keys), deadline, lambda: self._store.mget(keys, budget=budget))

    def mdelete(self, keys: Sequence[bytes], *, deadline: float = math.inf) -> None:
        """Remove many keys atomically; see `Store.mdelete`."""
        self._write(DELETE, len(keys), deadline, lambda: self._store.mdelete(keys, deadline=deadline))

    def get_config(self) -> str:
        """The configuration as JSON text, secrets redacted."""
        return self._configuration.show()

    def update_config(self, document: Mapping[str, object]) -> list[str]:
        """Change the configuration; returns the keys that need a restart."""
        restart_required = self._configuration.update(document)
        self._recorder.config_update()
        return restart_required

    def update_config_text(self, text: str) -> list[str]:
        """Change the configuration by JSON text; returns the keys that need a restart."""
        restart_required = self._configuration.update_text(text)
        self._recorder.config_update()
        return restart_required

    def health(self) -> str | None:
        """Why the server cannot serve, or None: the known conditions, and a real read of the storage."""
        started = time.perf_counter()
        reason = self._health.reason()
        if reason is None:
            try:
                self._store.check()
            except KvError as error:
                reason = str(error)
        self._recorder.health_check(time.perf_counter() - started)
        return reason

    @property
    def writes_fail(self) -> bool:
        """Whether a write has failed in the storage, and no trial write has succeeded since."""
        return self._health.failing(_CONDITION)

    def recover(self) -> None:
        """While writes are known to fail, try one; called now and then, so that health returns by itself.

        Raises StorageError as long as the cause stands.
        """
        if self._health.failing(_CONDITION):
            self._store.probe()
            self._health.recover(_CONDITION)

    def _write(self, name: str, keys: int, deadline: float, call: Callable[[], None]) -> None:
        try:
            self._counted(name, keys, deadline, call)
        except StorageError as error:
            self._health.fail(_CONDITION, f"writes fail: {error}")
            raise

    def _time_hot_get(self, key: bytes) -> None:
        started = time.perf_counter()
        self._hot(key)
        self._recorder.operation(GET, 0, time.perf_counter() - started, False, HOT_SAMPLE)

    def _counted(self, name: str, keys: int, deadline: float, call: Callable[[], T]) -> T:
        started = time.perf_counter()
        failed = True
        try:
            if time.monotonic() > deadline:
                raise DeadlineExceeded("the request's time ran out before it was started")
            result = call()
            failed = False
            return result
        finally:
            self._recorder.operation(name, keys, time.perf_counter() - started, failed)
