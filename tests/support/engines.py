"""An engine that fails, or lets something happen in between, where a test says so."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Callable, NamedTuple

from kvtwisted.backends.local.engines import open_engine
from kvtwisted.backends.local.engines.engine import (
    DATA,
    CanDeleteRange,
    CanReopen,
    Crossed,
    Engine,
    Mutation,
    Pairs,
    Statistics,
    everything,
    ignored,
    nothing,
)
from kvtwisted.core.errors import KvError
from kvtwisted.core.options import EngineOptions


class Call(NamedTuple):
    """One call of an engine: the method's name and its arguments."""

    method: str
    arguments: tuple[Any, ...]


class FaultyEngine:
    """Any engine, with every call recorded in `calls`, and faults and interruptions on request.

    A call that is to fail raises before it reaches the engine, so that nothing of it is done. It has all that
    any engine has: what the one behind it lacks does nothing. But only over one that can, it can delete ranges.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._faults: dict[str, tuple[KvError | Callable[[], KvError], float]] = {}
        self._before: dict[str, Callable[[], object]] = {}
        self._after: dict[str, Callable[[], object]] = {}
        self.calls: list[Call] = []
        #: Makes the engine one that cannot tell from memory and whose writes may wait, so that threads are needed.
        self.slow = False
        if isinstance(engine, CanDeleteRange):
            #: See `CanDeleteRange.delete_range`.
            self.delete_range = self._delete_range

    def fail(self, method: str, error: KvError | Callable[[], KvError], times: float = float("inf")) -> None:
        """Let the next `times` calls of `method` raise `error`, or what it makes each time."""
        self._faults[method] = (error, times)

    def heal(self, method: str) -> None:
        """Let `method` work again."""
        del self._faults[method]

    def before(self, method: str, act: Callable[[], object]) -> None:
        """Call `act` once, just before the next call of `method` reaches the engine."""
        self._before[method] = act

    def after(self, method: str, act: Callable[[], object]) -> None:
        """Call `act` once, when the next call of `method` has its answer and before the caller gets it."""
        self._after[method] = act

    def called(self, method: str) -> list[tuple[Any, ...]]:
        """The arguments of each call of `method`, failed ones included."""
        return [call.arguments for call in self.calls if call.method == method]

    def _call(self, method: str, *arguments: Any, **options: Any) -> Any:
        self.calls.append(Call(method, arguments))
        self._before.pop(method, _nothing)()
        error, left = self._faults.get(method, (None, 0))
        if error is not None and left > 0:
            self._faults[method] = (error, left - 1)
            try:
                raise error if isinstance(error, BaseException) else error()
            finally:
                del error  # like an engine's, it is not held by its own frames
        answer = getattr(self._engine, method, _nothing)(*arguments, **options)
        self._after.pop(method, _nothing)()
        return answer

    # The Protocol.

    @property
    def name(self) -> str:
        """The engine's name."""
        return self._engine.name

    @property
    def version(self) -> str:
        """The engine's version."""
        return self._engine.version

    @property
    def copies(self) -> int:
        """See `CanCheckpoint.copies`; the engine's answer."""
        return getattr(self._engine, "copies", 0)

    @property
    def is_persistent(self) -> bool:
        """The engine's answer."""
        return self._engine.is_persistent

    def get(self, key: bytes, family: str = DATA) -> bytes | None:
        """See `Engine.get`."""
        return self._call("get", key, family)

    @property
    def writes_wait(self) -> bool:
        """The engine's answer, or yes when it is `slow`."""
        return self.slow or self._engine.writes_wait

    @property
    def scans_wait(self) -> bool:
        """The engine's answer, or yes when it is `slow`."""
        return self.slow or self._engine.scans_wait

    def peek(self, key: bytes) -> tuple[bool, bytes | None]:
        """See `CanPeek.peek`."""
        return (False, None) if self.slow else self._call("peek", key)

    def multi_get(
        self, keys: Sequence[bytes], budget: int, keep: Callable[[bytes], bool] = everything
    ) -> list[bytes | None]:
        """See `Engine.multi_get`."""
        return self._call("multi_get", keys, budget, keep)

    def scan(
        self, start: bytes, end: bytes | None, family: str = DATA, until: float = math.inf, crossed: Crossed = ignored,
        *, reverse: bool = False,
    ) -> Pairs:  # fmt: skip
        """See `Engine.scan`. A scan in reverse is recorded as `scan` too."""
        return self._call("scan", start, end, family, until, crossed, **({"reverse": True} if reverse else {}))

    def write(self, mutations: Sequence[Mutation]) -> None:
        """See `Engine.write`."""
        self._call("write", list(mutations))

    def _delete_range(self, start: bytes, end: bytes | None) -> None:
        self._call("delete_range", start, end)

    def sync(self) -> None:
        """See `Engine.sync`."""
        self._call("sync")

    def compact(self, start: bytes, end: bytes, family: str = DATA) -> None:
        """See `CanCompact.compact`."""
        self._call("compact", start, end, *(() if family == DATA else (family,)))

    def checkpoint(self, folder: str) -> None:
        """See `CanCheckpoint.checkpoint`."""
        self._call("checkpoint", folder)

    def statistics(self) -> Statistics:
        """See `HasStatistics.statistics`."""
        return self._call("statistics") or Statistics()

    def effective_options(self) -> Mapping[str, object]:
        """See `HasOptions.effective_options`."""
        return self._call("effective_options") or {}

    def reopen(self, closed: Callable[[], None] = nothing) -> None:
        """See `CanReopen.reopen`."""
        self._call("reopen", closed)
        if not isinstance(self._engine, CanReopen):
            closed()

    def close(self) -> None:
        """See `Engine.close`."""
        self._call("close")


def _nothing(*_: object, **__: object) -> None:
    pass


def memory_engine() -> FaultyEngine:
    """An empty engine in memory that can be made to fail."""
    return FaultyEngine(open_engine("memory", "", EngineOptions()))
