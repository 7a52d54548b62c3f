"""Errors of the storage hold no frames once they are kept, so that nothing waits for the collector."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from kvtwisted.backends.local.write import Write
from kvtwisted.core.errors import KvError, StorageError, StorageFull, WriteStalled, without_frames
from tests.support.collector import without_collector
from tests.support.storage import Storage


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    """Within each test cycles are not collected."""
    with without_collector():
        yield


class Large(bytes):
    """A value that is counted; weak references to bytes there are none."""

    there = 0

    def __init__(self, *of: object) -> None:
        Large.there += 1

    def __del__(self) -> None:
        Large.there -= 1


def raised(error: Exception) -> Exception:
    """`error`, with a traceback and a context of the same kind."""
    try:
        try:
            raise ValueError
        except ValueError as cause:
            raise error from cause
    except Exception as caught:
        return caught


def test_no_frames_in_the_whole_chain() -> None:
    """Neither the error nor what led to it has a traceback any more; a chain that bites its tail ends."""
    error = raised(StorageError("broken"))
    assert error.__traceback__ is not None
    assert without_frames(error) is error
    cause = error.__cause__
    assert cause is not None
    assert (error.__traceback__, cause.__traceback__) == (None, None)
    cause.__context__ = error
    without_frames(error)


def left_of_refused(storage: Storage, act: Callable[[bytes], object]) -> int:
    """How many of the values of some writes that failed are left, though the last error is still there."""
    for _ in range(3):
        with pytest.raises(KvError):
            act(Large(b"x" * 1000))
        storage.engine.calls.clear()
    return Large.there


def settled(storage: Storage, value: bytes) -> None:
    """A write of a group, whose error the caller raises."""
    write = Write([(b"k", value, 0)])
    storage.writer.write_all([write])
    write.check()


@pytest.mark.parametrize(
    "act",
    [
        lambda storage, value: storage.store.set(b"k", value),
        lambda storage, value: storage.store.set(b"k", value, 60),
        lambda storage, value: storage.store.mset({b"k": value, b"l": value}, 0),
        settled,
    ],
    ids=["set", "set-ttl", "mset", "settled"],
)
@pytest.mark.parametrize("method", ["write", "sync"])
def test_refused_write_is_free_at_once(method: str, act: Callable[[Storage, bytes], object]) -> None:
    """Whatever refused it: once the error was seen, nothing of the write is left."""
    storage = Storage(durable=True)

    def refused(value: bytes) -> None:
        # Another error each time, as of a real engine: the fake keeps the last one, with the frames it was raised in.
        storage.engine.fail(method, StorageError("broken"))
        try:
            act(storage, value)
        finally:
            storage.engine.heal(method)

    left = left_of_refused(storage, refused)
    # What only could not be synced is in the engine.
    assert left == (0 if method == "write" else left)


def test_stalled_write_is_free_at_once() -> None:
    """One whose time ran out while RocksDB stalled writes."""
    storage = Storage()

    def stalled(value: bytes) -> None:
        storage.engine.fail("write", WriteStalled("stalled"))
        try:
            storage.store.mset({b"k": value}, 0, deadline=0)
        finally:
            storage.engine.heal("write")

    assert left_of_refused(storage, stalled) == 0


def test_refused_by_the_disk_is_free_at_once() -> None:
    """Writes that are refused before they are tried."""

    def full(size: int) -> None:
        raise StorageFull("full")

    storage = Storage()
    storage.writer._admit = full
    for act in (
        lambda value: storage.store.set(b"k", value),
        lambda value: storage.store.mset({b"k": value}, 0),
        lambda value: settled(storage, value),
    ):
        assert left_of_refused(storage, act) == 0


def test_error_that_writes_share() -> None:
    """Writes of several threads that went in together fail together; each thread's frames go with its error."""
    storage = Storage()
    storage.engine.fail("write", StorageError("broken"))
    errors: list[str] = []

    def write() -> None:
        for _ in range(50):
            try:
                storage.store.set(b"k", Large(b"y" * 1000))
            except StorageError as error:
                errors.append(str(error))

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    storage.engine.calls.clear()
    assert errors == ["broken"] * 200
    # The fake's own error, made once for all, has the frames of whoever raised it last.
    without_frames(storage.engine._faults["write"][0])
    assert Large.there == 0
