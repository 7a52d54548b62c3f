"""Every engine against a dict: any series of operations gives the same answers."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvtwisted.backends.local.engines.engine import DATA, FAMILIES, FILES, CanCompact, CanDeleteRange

from .support import INSTALLED, PERSISTENT, PLENTY, opened

keys = st.binary(max_size=3) | st.sampled_from([b"a", b"a\0", b"a\xff", b"\xff\xff", b"k" * 1024])
families = st.sampled_from(FAMILIES)
mutations = st.lists(st.tuples(families, keys, st.none() | st.binary(max_size=5)), max_size=80)

operations = st.one_of(
    st.tuples(st.just("write"), mutations),
    st.tuples(st.just("get"), keys, families),
    st.tuples(st.just("multi_get"), st.lists(keys, max_size=100)),
    st.tuples(st.just("scan"), keys, st.none() | keys, families, st.booleans()),
    st.tuples(st.just("scan later"), keys, st.none() | keys, families, st.booleans()),
    st.tuples(st.just("seek"), keys, st.none() | keys, families, st.booleans(), keys),
    st.tuples(st.just("compact"), keys, keys),
    st.tuples(st.just("delete range"), keys, st.none() | keys),
    st.tuples(st.just("reopen")),
)


@pytest.mark.parametrize("name", INSTALLED)
def test_engine_behaves_like_a_dict(name: str) -> None:
    """Reads after any writes, compactions and restarts equal those of a dict, and open scans keep their view."""

    # Not a `given` test itself: pytest-twisted cannot run one that is parametrised.
    @settings(max_examples=40, deadline=None, derandomize=True, database=None)
    @given(series=st.lists(operations, max_size=25))
    def holds(series: list[tuple[Any, ...]]) -> None:
        with TemporaryDirectory() as folder:
            run(name, Path(folder), series)

    holds()


def run(name: str, folder: Path, series: list[tuple[Any, ...]]) -> None:
    """Carry out the operations on the engine and on dicts, and compare."""
    engine = opened(name, folder)
    model: dict[str, dict[bytes, bytes]] = {family: {} for family in FAMILIES}
    begun = []

    def expected(start: bytes, end: bytes | None, family: str, reverse: bool = False) -> list[tuple[bytes, bytes]]:
        pairs = sorted(model[family].items(), reverse=reverse)
        return [pair for pair in pairs if pair[0] >= start and (end is None or pair[0] < end)]

    for operation, *arguments in series:
        if operation == "write":
            engine.write(*arguments)
            for family, key, value in arguments[0]:
                model[family].pop(key, None)
                if value is not None:
                    model[family][key] = value
        elif operation == "get":
            key, family = arguments
            assert engine.get(key, family) == model[family].get(key)
        elif operation == "multi_get":
            assert engine.multi_get(*arguments, PLENTY) == [model[DATA].get(key) for key in arguments[0]]
        elif operation == "scan":
            *bounds, reverse = arguments
            assert list(engine.scan(*bounds, reverse=reverse)) == expected(*arguments)
        elif operation == "scan later":
            *bounds, reverse = arguments
            begun.append((engine.scan(*bounds, reverse=reverse), expected(*arguments)))
        elif operation == "seek":
            *bounds, reverse, place = arguments
            scan, pairs = engine.scan(*bounds, reverse=reverse), expected(*bounds, reverse)
            taken = scan.take(1)
            ahead = [pair for pair in pairs[1:] if (pair[0] < place if reverse else pair[0] >= place)]
            if pairs and (place <= pairs[0][0] if reverse else place > pairs[0][0]):
                scan.seek(place)
                assert taken + list(scan) == pairs[:1] + ahead
        elif operation == "delete range":
            start, end = arguments
            if isinstance(engine, CanDeleteRange) and (end is None or start < end):
                engine.delete_range(start, end)
                for family in (DATA, FILES):
                    for key, _ in expected(start, end, family):
                        del model[family][key]
        elif operation == "compact":
            if isinstance(engine, CanCompact):
                engine.compact(*sorted(arguments))
        elif name in PERSISTENT:
            begun.clear()
            engine.close()
            engine = opened(name, folder)
    assert [list(scan) for scan, _ in begun] == [pairs for _, pairs in begun]
    assert {family: list(engine.scan(b"", None, family)) for family in FAMILIES} == {
        family: expected(b"", None, family) for family in FAMILIES
    }
    engine.close()
