"""Get and writes without Deferreds: counted in and out like all others."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from kvtwisted.core.admission import Admission
from kvtwisted.core.errors import InvalidKey, Overloaded, Unavailable
from kvtwisted.core.health import Health
from kvtwisted.core.operations import Operations
from kvtwisted.core.records import Found
from kvtwisted.threaded.facade import AsyncOperations
from kvtwisted.threaded.work import Work

from ..support.configuration import FakeConfiguration
from ..support.pools import ImmediateReactor, ManualPool
from ..support.recorders import CountingRecorder
from ..support.storage import Storage

#: Bytes that requests may have together.
BYTES = 100


class Scene:
    """The direct operations over a store in memory."""

    def __init__(self, capacity: int = 2) -> None:
        self.reactor = ImmediateReactor()
        self.storage = Storage()
        self.admission = Admission(capacity, BYTES)
        operations = Operations(self.storage.store, FakeConfiguration({}), CountingRecorder(), Health())
        pool: Any = ManualPool()  # what is used of a pool is there
        work = Work(self.reactor, pool, operations)
        self.direct = AsyncOperations(operations, work, self.admission).direct
        self.told: list[BaseException | None] = []

    def set(self, key: bytes) -> None:
        """Begin a set."""
        self.direct.write(1, partial(self.direct.begin_set, key, b"v"), self.told.append)


def test_a_write_is_told_of_when_it_is_settled() -> None:
    """It counts until then."""
    scene = Scene()
    scene.set(b"k")
    assert (scene.told, scene.admission.in_flight) == ([], 1)
    scene.reactor.turn()
    assert (scene.told, scene.admission.in_flight) == ([None], 0)
    assert scene.direct.get_now(b"k") == (True, Found(b"v", 0))


def test_a_bad_write_is_raised_and_counted_out() -> None:
    """Nobody is told later."""
    scene = Scene()
    with pytest.raises(InvalidKey):
        scene.set(b"")
    scene.reactor.turn()
    assert (scene.told, scene.admission.in_flight) == ([], 0)


def test_capacity_and_end() -> None:
    """Over capacity everything is refused, and so it is when the server stops."""
    scene = Scene(capacity=1)
    scene.set(b"k")
    with pytest.raises(Overloaded):
        scene.set(b"k")
    with pytest.raises(Overloaded):
        scene.direct.get_now(b"k")
    scene.reactor.turn()
    scene.admission.close()
    with pytest.raises(Unavailable):
        scene.direct.get_now(b"k")


def test_a_write_that_finds_no_room_is_not_begun() -> None:
    """So that it is neither taken from a rate nor audited."""
    scene = Scene()
    scene.admission.enter(BYTES)
    begun: list[None] = []
    with pytest.raises(Overloaded, match="max_bytes_in_flight"):
        scene.direct.write(1, lambda: begun.append(None), scene.told.append)  # type: ignore[arg-type,func-returns-value]
    assert (begun, scene.told, scene.admission.in_flight) == ([], [], 1)
