"""In which order keys were written last."""

from __future__ import annotations

import pytest

from kvtwisted.backends.local.engines.engine import DATA, EXPIRY
from kvtwisted.backends.local.write_sequence import SHARE, WriteSequence
from kvtwisted.backends.local.writer import Writer
from kvtwisted.core.errors import StorageError

from ...support.engines import memory_engine


def _numbered(count: int, places: int = 1 << 16) -> tuple[WriteSequence, list[bytes]]:
    """So many keys, written once each in this order."""
    write_sequence, keys = WriteSequence(places), [b"%06d" % n for n in range(count)]
    write_sequence.record(True)
    for key in keys:
        write_sequence.written([(DATA, key, b"")])
    return write_sequence, keys


def test_later_writes_have_higher_numbers() -> None:
    """By the last write to each key; a deletion and other families count for nothing."""
    write_sequence = WriteSequence(1 << 16)
    write_sequence.record(True)
    write_sequence.written([(DATA, b"a", b""), (DATA, b"b", b"1")])
    write_sequence.written([(DATA, b"c", b"")])
    assert 0 < write_sequence.number(b"a") < write_sequence.number(b"b") < write_sequence.number(b"c")
    write_sequence.written([(DATA, b"a", b"2"), (DATA, b"b", None), (EXPIRY, b"b", b"")])
    assert write_sequence.number(b"b") < write_sequence.number(b"c") < write_sequence.number(b"a")
    assert write_sequence.number(b"unknown") == 0


def test_keys_that_share_a_place_look_young() -> None:
    """Never older than they are, however small the table."""
    write_sequence, keys = _numbered(100, places=8)
    for number, key in enumerate(keys, 1):
        assert write_sequence.number(key) >= number


def test_nothing_is_known_while_it_is_off() -> None:
    """Nothing is recorded, and what was is forgotten."""
    write_sequence = WriteSequence()
    write_sequence.written([(DATA, b"a", b"")])
    write_sequence.written([(DATA, b"a", b"1")])
    assert (write_sequence.recording, write_sequence.number(b"a"), write_sequence.oldest_share(0)) == (False, 0, 0)
    write_sequence.record(True)
    write_sequence.written([(DATA, b"a", b"")])
    write_sequence.record(True)
    assert write_sequence.number(b"a") == 1
    write_sequence.record(False)
    assert (write_sequence.recording, write_sequence.number(b"a")) == (False, 0)


@pytest.mark.parametrize("count", [1, 10, 1000, 40_000])
def test_oldest_share_is_about_that(count: int) -> None:
    """One in SHARE of the numbers after, at least one; none when there are none. (Keys may share one.)"""
    write_sequence, keys = _numbered(count, places=1 << 20)
    numbers = {write_sequence.number(key) for key in keys}
    after = 0
    while share := write_sequence.oldest_share(after):
        chosen = sum(after < number <= share for number in numbers)
        left = sum(after < number for number in numbers)
        assert 0.8 * left / SHARE - 1 <= chosen <= 1.25 * left / SHARE + 1
        after = share
        if count > 1000 and after > count // 4:
            return
    assert after == count


def test_writer_records_what_was_applied() -> None:
    """Writes that have succeeded, and only while it is told to."""
    engine, write_sequence = memory_engine(), WriteSequence(1 << 16)
    writer = Writer(engine)
    writer.write([(b"before", b"1", 0)])
    write_sequence.record(True)
    writer.commits.write_sequence = write_sequence
    writer.write([(b"a", b"1", 0)])
    writer.write([(b"b", b"2", 0)])
    engine.fail("write", StorageError("broken"), times=1)
    with pytest.raises(StorageError):
        writer.write([(b"c", b"3", 0)])
    assert [write_sequence.number(key) for key in (b"before", b"a", b"b", b"c")] == [0, 1, 2, 0]
    writer.commits.write_sequence = None
    writer.write([(b"e", b"5", 0)])
    assert write_sequence.number(b"e") == 0
