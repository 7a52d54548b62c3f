"""Batches are never seen half-done, whatever reads at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from kvtwisted.backends.local.engines.engine import DATA, EXPIRY, Engine
from kvtwisted.core.errors import WriteStalled

from .support import PLENTY

#: Reads of a test at most, should the writer hardly get a turn; and different batches that must have been seen.
READS, DIFFERENT = 20_000, 5

READERS: dict[str, Callable[[Engine, list[bytes]], list[bytes | None]]] = {
    "multi_get": lambda engine, keys: engine.multi_get(keys, PLENTY),
    "scan": lambda engine, keys: [value for _, value in engine.scan(b"", None)],
    "scan of expiry": lambda engine, keys: [value for _, value in engine.scan(b"", None, EXPIRY)],
}


@pytest.mark.parametrize("read", READERS.values(), ids=list(READERS))
@pytest.mark.parametrize("count", [50, 100, 1000])
def test_no_reader_sees_half_a_batch(
    engine: Engine, count: int, read: Callable[[Engine, list[bytes]], list[bytes | None]]
) -> None:
    """While one thread rewrites all keys by one batch after the other, each read sees exactly one of the batches."""
    keys = [b"%04d" % number for number in range(count)]
    done = threading.Event()

    def flip() -> None:
        turn = 0
        while not done.is_set():
            turn += 1
            value = b"%d" % turn
            try:
                engine.write([(family, key, value) for key in keys for family in (DATA, EXPIRY)])
            except WriteStalled:
                continue

    engine.write([(family, key, b"0") for key in keys for family in (DATA, EXPIRY)])
    writer = threading.Thread(target=flip)
    writer.start()
    seen = set()
    try:
        for _ in range(READS):
            values = read(engine, keys)
            assert len(values) == count
            assert len(set(values)) == 1
            seen.add(values[0])
            if len(seen) >= DIFFERENT:
                break
    finally:
        done.set()
        writer.join()
    assert len(seen) >= DIFFERENT
