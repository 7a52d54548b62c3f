"""The operations as Deferreds: what cannot block runs here and now, what may block in a bounded pool of threads.

Used on the reactor thread only. The bound is taken before a call is queued, because Twisted's own backlog has none, and
given back where the thread finishes: a client that goes away cancels its Deferred, but its write may still be running.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Callable, TypeVar

from twisted.internet.defer import Deferred, fail, succeed

from ..core.admission import Admission
from ..core.errors import KvError
from ..core.operations import Pending
from ..core.pages import Page
from ..core.records import Found
from ..core.service import Service
from .direct import Direct
from .pool import caught
from .work import Work

T = TypeVar("T")


class AsyncOperations:
    """`Operations`, method by method, each returning a Deferred that fails with what the method raises.

    A Get that memory can answer is answered at once; writes of one reactor turn go in together (`GroupCommit`).
    A call over the admission's capacity fails at once with Overloaded; while stopping, with Unavailable.
    """

    def __init__(self, operations: Service, work: Work, admission: Admission) -> None:
        self._operations = operations
        self._work = work
        self._admission = admission
        #: The same without Deferreds.
        self.direct = Direct(operations, work, admission)

    def set(self, key: bytes, value: bytes, ttl: int = 0, *, deadline: float = math.inf) -> Deferred[None]:
        """See `Operations.set`."""
        return self._write(len(value), lambda: self._operations.begin_set(key, value, ttl, deadline=deadline))

    def get(self, key: bytes, *, deadline: float = math.inf) -> Deferred[Found | None]:
        """See `Operations.get`. What memory has is answered at once."""
        try:
            known, found = self.direct.get_now(key)
        except Exception:
            return fail(caught())
        return succeed(found) if known else self._admitted(self._operations.get, 0, key, deadline=deadline)

    def delete(self, key: bytes, *, deadline: float = math.inf) -> Deferred[None]:
        """See `Operations.delete`."""
        return self._write(len(key), lambda: self._operations.begin_delete(key, deadline=deadline))

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
        call = partial(
            self._operations.scan, prefix,
            cursor=cursor, limit=limit, keys_only=keys_only, budget=budget, deadline=deadline,
        )  # fmt: skip
        return self._enter(self._scan, len(prefix), call)

    def mset(self, pairs: Mapping[bytes, bytes], ttl: int = 0, *, deadline: float = math.inf) -> Deferred[None]:
        """See `Operations.mset`."""
        return self._write(
            sum(map(len, pairs.values())), lambda: self._operations.begin_mset(pairs, ttl, deadline=deadline)
        )

    def mget(self, keys: Sequence[bytes], *, budget: int, deadline: float = math.inf) -> Deferred[dict[bytes, bytes]]:
        """See `Operations.mget`."""
        return self._admitted_large(self._operations.mget, sum(map(len, keys)), keys, budget=budget, deadline=deadline)

    def mdelete(self, keys: Sequence[bytes], *, deadline: float = math.inf) -> Deferred[None]:
        """See `Operations.mdelete`."""
        return self._write(sum(map(len, keys)), lambda: self._operations.begin_mdelete(keys, deadline=deadline))

    def get_config(self) -> Deferred[str]:
        """See `Operations.get_config`."""
        return self._admitted(self._operations.get_config, 0)

    def update_config(self, document: Mapping[str, object]) -> Deferred[list[str]]:
        """See `Operations.update_config`."""
        return self._admitted(self._operations.update_config, 0, document)

    def update_config_text(self, text: str) -> Deferred[list[str]]:
        """See `Operations.update_config_text`."""
        return self._admitted(self._operations.update_config_text, len(text), text)

    def reckon(self, call: Callable[[], T], size: int) -> Deferred[T]:
        """Let the pool do what is not storage work but too much for the reactor, over `size` bytes of a request."""
        return self._admitted(call, size)

    def _admitted(self, call: Callable[..., T], size: int, *args: Any, **kwargs: Any) -> Deferred[T]:
        """Let the pool do it. The request has `size` bytes."""
        return self._enter(self._work.run, size, partial(call, *args, **kwargs))

    def _admitted_large(self, call: Callable[..., T], size: int, *args: Any, **kwargs: Any) -> Deferred[T]:
        """The same for what may have a large result."""
        return self._enter(self._work.run_large, size, partial(call, *args, **kwargs))

    def _scan(self, job: Callable[[], T]) -> Deferred[T]:
        return self._work.scan(self._work.large(job), self._admission)

    def _enter(self, run: Callable[..., Deferred[T]], size: int, call: Callable[[], T]) -> Deferred[T]:
        try:
            self._admission.enter(size)
        except KvError:
            return fail(caught())
        return run(partial(self._leaving, size, call))

    def _write(self, size: int, begin: Callable[[], Pending]) -> Deferred[None]:
        """Admit a write, check it, and let it go in. A cancelled Deferred fires at once, but the write goes in."""
        written: Deferred[None] = Deferred()

        def done(error: BaseException | None) -> None:
            if error is None:
                written.callback(None)
            else:
                written.errback(error)

        try:
            self.direct.write(size, begin, done)
        except Exception:
            return fail(caught())
        return written

    def _leaving(self, size: int, call: Callable[[], T]) -> T:
        try:
            return call()
        finally:
            self._admission.leave(1, size)
