"""Pairs that are taken some at a time: the same as one by one, from one view, none lost, and not too many at once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kvtwisted.backends.local.engines import scans
from kvtwisted.backends.local.engines.engine import DATA, FAMILIES, Engine, Pairs, ScanUnfinished
from kvtwisted.backends.local.engines.pieces import SKIPS
from kvtwisted.backends.local.engines.scans import AT_ONCE, LARGE, SLOW, TAKEN_BYTES, next_pairs
from kvtwisted.core.errors import Corruption, Unavailable

from .support import PERSISTENT, opened, put
from .test_faults import KEYS, filled, overwrite

#: What pages take: few at first, then many.
FEW, MANY = 16, 256
Pair = tuple[bytes, bytes]


def taken(scan: Pairs, *first: int, most: int = MANY) -> list[Pair]:
    """All pairs: so many at first, and then `most` at a time."""
    pairs: list[Pair] = []
    for wanted in first:
        pairs += scan.take(wanted)
    while some := scan.take(most):
        assert len(some) <= most
        pairs += some
    assert scan.take(most) == []
    return pairs


def _take_on(scan: Pairs, seen: list[Pair]) -> None:
    while some := scan.take(MANY):
        seen += some


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("most", [1, 2, AT_ONCE, AT_ONCE + 1, MANY, 10_000])
@pytest.mark.parametrize("reverse", [False, True])
def test_any_number_at_a_time(engine: Engine, family: str, most: int, reverse: bool) -> None:
    """All pairs of the range and no others, in order, whatever is asked for; from memory and, if it can, from files."""
    expected = [(b"k%04d" % number, b"v" * (number % 70) * (number % 71)) for number in range(1000)]
    engine.write([(family, key, value) for key, value in expected])
    for start, end, low, high in ((b"", None, 0, 1000), (b"k0010", b"k0990", 10, 990), (b"k0998", b"l", 998, 1000)):
        wanted = expected[low:high][:: -1 if reverse else 1]
        assert taken(engine.scan(start, end, family, reverse=reverse), most=most) == wanted
        assert taken(engine.scan(start, end, family, reverse=reverse), FEW, most=most) == wanted
    scan = engine.scan(b"", None, family, reverse=reverse)
    mixed = scan.take(FEW) + [next(scan) for _ in range(3)] + scan.take(MANY) + [next(scan)]
    assert mixed + list(scan) == expected[:: -1 if reverse else 1]


@pytest.mark.parametrize("when", ["before the second", "before the third", "after the scan"])
@pytest.mark.parametrize("reverse", [False, True])
def test_one_view(engine: Engine, when: str, reverse: bool) -> None:
    """Writes do not show, whether they come before many are taken, or in between."""
    old = [(b"%04d" % number, b"old") for number in range(1000)]
    engine.write([(DATA, key, value) for key, value in old])
    scan = engine.scan(b"", None, reverse=reverse)
    seen = scan.take(FEW)
    if when == "before the third":
        seen += scan.take(MANY)
    if when != "after the scan":
        engine.write([(DATA, key, None) for key, _ in old[::2]] + [(DATA, key, b"new") for key, _ in old[1::2]])
        put(engine, b"0500+", b"9999")
    assert seen + taken(scan) == old[:: -1 if reverse else 1]


@pytest.mark.parametrize("many", [100, 20 * SKIPS])
def test_deleted_keys_in_the_midst(engine: Engine, many: int) -> None:
    """Where RocksDB gives up, the pairs in bulk end; the scan does not."""
    keys = [b"k%06d" % number for number in range(1000 + many)]
    for value in (b"v", None):
        engine.write([(DATA, key, value) for key in (keys if value else keys[500:-500])])
    assert [key for key, _ in taken(engine.scan(b"", None), FEW)] == keys[:500] + keys[-500:]
    assert [key for key, _ in taken(engine.scan(b"", b"k0005"), FEW)] == keys[:500]
    backwards = taken(engine.scan(b"", None, reverse=True), FEW)
    assert [key for key, _ in backwards] == (keys[:500] + keys[-500:])[::-1]


def test_time_among_deleted_keys(tmp_path: Path) -> None:
    """All pairs before them are given before it is told that the time is over; and the error holds nothing."""
    engine = opened("rocksdict", tmp_path)
    keys = [b"k%06d" % number for number in range(20 * SKIPS)]
    for value in (b"v", None):
        engine.write([(DATA, key, value) for key in (keys if value else keys[500:])])
    put(engine, b"z")
    scan = engine.scan(b"", None, until=0.0)
    seen: list[Pair] = scan.take(FEW)
    with pytest.raises(ScanUnfinished) as kept:
        _take_on(scan, seen)
    assert [key for key, _ in seen] == keys[:500]
    assert kept.value.reached > keys[499]
    engine.close()
    opened("rocksdict", tmp_path).close()


@pytest.mark.parametrize("name", PERSISTENT)
@pytest.mark.parametrize("reverse", [False, True])
def test_damage(name: str, reverse: bool, tmp_path: Path) -> None:
    """A damaged block is not the end of all, and what is held of its error does not hold the folder."""
    table = filled(name, tmp_path)
    overwrite(table, table.stat().st_size // 2)
    engine = opened(name, tmp_path)
    scan = engine.scan(b"", None, reverse=reverse)
    seen: list[Pair] = scan.take(FEW)
    with pytest.raises(Corruption) as kept:
        _take_on(scan, seen)
    assert seen == [(key, key * 20) for key in KEYS[:: -1 if reverse else 1][: len(seen)]]
    assert 1000 < len(seen) < 3000
    engine.close()
    opened(name, tmp_path).close()
    assert kept.value.code == "corruption"


@pytest.mark.parametrize("name", PERSISTENT)
@pytest.mark.parametrize("ending", ["close", "reopen"])
@pytest.mark.parametrize("reverse", [False, True])
def test_end_of_the_database(name: str, ending: str, reverse: bool, tmp_path: Path) -> None:
    """It ends scans that are in the midst of many pairs; they hold nothing of it."""
    engine = opened(name, tmp_path)
    put(engine, *KEYS)
    scan = engine.scan(b"", None, reverse=reverse)
    assert len(scan.take(FEW) + scan.take(MANY)) == FEW + MANY
    getattr(engine, ending)()
    for _ in range(2):
        with pytest.raises(Unavailable):
            scan.take(MANY)
    if ending == "reopen":
        assert len(taken(engine.scan(b"", None))) == len(KEYS)
        engine.close()
    opened(name, tmp_path).close()


def test_large_values_are_taken_few_at_a_time(engine: Engine) -> None:
    """However many are asked for, and however small the values before them were."""
    small, large = b"s" * 10, b"l" * (2 * LARGE)
    for first in range(0, 400, 100):
        engine.write(
            [(DATA, b"%04d" % number, small if first < 200 else large) for number in range(first, first + 100)]
        )
    scan = engine.scan(b"", None)
    sizes = []
    while pairs := scan.take(10_000):
        sizes.append(sum(len(value) for _, value in pairs))
    assert max(sizes) < 2 * AT_ONCE * len(large) + TAKEN_BYTES
    assert sorted(sizes)[len(sizes) // 2] <= TAKEN_BYTES + len(large)
    assert sum(sizes) == 200 * (len(small) + len(large))


def test_no_pair_may_hide_others() -> None:
    """Large values among small ones end it soon, wherever they are."""
    for place in range(AT_ONCE):
        values = [b"" if number % AT_ONCE == place else b"l" * LARGE for number in range(100 * AT_ONCE)]
        pairs = iter([(b"%06d" % number, value) for number, value in enumerate(values)])
        assert len(next_pairs(pairs, len(values))) < 20 * AT_ONCE


def test_what_is_slow_is_taken_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's lock is not held for many pairs that each need the disk, or lie behind many deleted keys."""
    now = 0.0
    went: list[float] = []

    def look() -> float:
        went.append(now)
        return now

    def pairs() -> Iterator[Pair]:
        nonlocal now
        for number in range(20 * AT_ONCE):
            now += 2 * SLOW if number >= 10 * AT_ONCE else 0
            yield b"%06d" % number, b""

    monkeypatch.setattr(scans, "monotonic", look)
    assert len(next_pairs(pairs(), 20 * AT_ONCE)) == 20 * AT_ONCE
    goes = [after - before for before, after in zip(went, went[1:])]
    slow = [round(seconds / SLOW / 2) for seconds in goes if seconds]
    assert len(goes) - len(slow) < 15
    assert slow[0] <= AT_ONCE
    assert set(slow[1:]) == {1}
