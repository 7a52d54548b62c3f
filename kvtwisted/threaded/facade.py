"""The operations as Deferreds: one bounded hop to a thread pool for each call.

Used on the reactor thread only. The bound is taken before a call is queued, because Twisted's own backlog has none, and
given back where the thread finishes: a client that goes away cancels its Deferred, but its write may still be running.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Callable, TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

from ..core.admission import Admission
from ..core.errors import KvError
from ..core.operations import Operations
from ..core.records import Found
from ..core.store import Page

T = TypeVar("T")


class AsyncOperations:
    """`Operations`, method by method, each returning a Deferred that fails with what the method raises.

    A call over the admission's capacity fails at once with Overloaded; while stopping, with Unavailable.
    """

    def __init__(
        self, reactor: IReactorFromThreads, pool: ThreadPool, operations: Operations, admission: Admission
    ) -> None:
        self._reactor = reactor
        self._pool = pool
        self._operations = operations
        self._admission = admission
        # One mark for each call that no thread has taken up yet: appended here, popped there, both atomic.
        self._queued: deque[None] = deque()

    @property
    def queue_depth(self) -> int:
        """Admitted calls that wait for a thread."""
        return len(self._queued)

    def set(self, key: bytes, value: bytes, ttl: int = 0, *, deadline: float = math.inf) -> Deferred[None]:
        """See `Operations.set`."""
        return self._admitted(self._operations.set, key, value, ttl, deadline=deadline)

    def get(self, key: bytes, *, deadline: float = math.inf) -> Deferred[Found | None]:
        """See `Operations.get`."""
        return self._admitted(self._operations.get, key, deadline=deadline)

    def delete(self, key: bytes, *, deadline: float = math.inf) -> Deferred[None]:
        """See `Operations.delete`."""
        return self._admitted(self._operations.delete, key, deadline=deadline)

    def scan(
        self,
        prefix: bytes,
        *,
        cursor: bytes = b"",
        limit: int = 0,
        keys_only: bool = False,
        budget: int,
        deadline: float = math.inf,
    ) -> Deferred[Page]:
        """See `Operations.scan`."""
        return self._admitted(
            self._operations.scan, prefix,
            cursor=cursor, limit=limit, keys_only=keys_only, budget=budget, deadline=deadline,
        )  # fmt: skip

    def mset(self, pairs: Mapping[bytes, bytes], ttl: int = 0, *, deadline: float = math.inf) -> Deferred[None]:
        """See `Operations.mset`."""
        return self._admitted(self._operations.mset, pairs, ttl, deadline=deadline)

    def mget(self, keys: Sequence[bytes], *, budget: int, deadline: float = math.inf) -> Deferred[dict[bytes, bytes]]:
        """See `Operations.mget`."""
        return self._admitted(self._operations.mget, keys, budget=budget, deadline=deadline)

    def mdelete(self, keys: Sequence[bytes], *, deadline: float = math.inf) -> Deferred[None]:
        """See `Operations.mdelete`."""
        return self._admitted(self._operations.mdelete, keys, deadline=deadline)

    def get_config(self) -> Deferred[str]:
        """See `Operations.get_config`."""
        return self._admitted(self._operations.get_config)

    def update_config(self, document: Mapping[str, object]) -> Deferred[list[str]]:
        """See `Operations.update_config`."""
        return self._admitted(self._operations.update_config, document)

    def update_config_text(self, text: str) -> Deferred[list[str]]:
        """See `Operations.update_config_text`."""
        return self._admitted(self._operations.update_config_text, text)

    def health(self) -> Deferred[str | None]:
        """See `Operations.health`. Not refused under load: a server that is busy is not ill."""
        return deferToThreadPool(self._reactor, self._pool, self._operations.health)

    def _admitted(self, call: Callable[..., T], *args: Any, **kwargs: Any) -> Deferred[T]:
        try:
            self._admission.enter()
        except KvError:
            return fail()
        self._queued.append(None)
        return deferToThreadPool(self._reactor, self._pool, self._leaving, call, args, kwargs)

    def _leaving(self, call: Callable[..., T], args: Any, kwargs: Any) -> T:
        self._queued.pop()
        try:
            return call(*args, **kwargs)
        finally:
            self._admission.leave()
