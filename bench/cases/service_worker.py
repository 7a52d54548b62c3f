"""The process behind `service`: databases that hold every key, and a run for each case, ours and the binding's own."""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from functools import partial
from typing import Callable

from kvtwisted.backends.local.cache import HotCache
from kvtwisted.backends.local.engines import open_engine
from kvtwisted.backends.local.store import Store
from kvtwisted.backends.local.writer import Writer
from kvtwisted.core.clock import Clock
from kvtwisted.core.options import MIB, EngineOptions

from ..bare import Bare, open_bare
from ..calls import Calls
from ..worker import seconds, serve
from .service import BARE, BATCH, CASES, OURS

PLENTY = 1 << 30


def make_calls(engine: str, folder: str, cache_bytes: int) -> Calls:
    """What the server makes of an engine, with default options."""
    opened = open_engine(engine, folder, EngineOptions())
    return Calls(Store(opened, Writer(opened, HotCache(cache_bytes)), Clock()))


def shuffled(count: int) -> list[bytes]:
    """So many keys, in the same random order each time."""
    keys = [b"key%08d" % number for number in range(count)]
    random.Random(1).shuffle(keys)
    return keys


def make_cases(
    cached: Calls, cold: Calls, bare: Bare, keys: Sequence[bytes], value: bytes
) -> dict[str, tuple[Callable[[], None], Callable[[], None]]]:
    """The runs of every case, ours and the binding's."""
    count = len(keys)
    batches = [list(keys[first : first + BATCH]) for first in range(0, count, BATCH)]
    pairs = [dict.fromkeys(batch, value) for batch in batches]

    def gets(get: Callable[[bytes], object]) -> None:
        for key in keys:
            get(key)

    def sets(put: Callable[[bytes, bytes], object], finish: Callable[[], object] = lambda: None) -> None:
        for key in keys:
            put(key, value)
        finish()

    def mixed(
        get: Callable[[bytes], object],
        put: Callable[[bytes, bytes], object],
        finish: Callable[[], object] = lambda: None,
    ) -> None:
        for first, second in zip(keys[::2], keys[1::2]):
            get(first)
            put(second, value)
        finish()

    def mgets(calls: Calls) -> None:
        for batch in batches:
            calls.mget(batch, budget=PLENTY)

    def msets(calls: Calls) -> None:
        for batch in pairs:
            calls.mset(batch)

    def bare_mgets() -> None:
        for batch in batches:
            bare.multi_get(batch)

    def bare_msets() -> None:
        for batch in batches:
            bare.multi_put(batch, value)

    def scan(read: Callable[[], int]) -> None:
        if read() != count:
            raise RuntimeError("the scan did not give every key")

    def scan_ours() -> int:
        # Its keys; in older trees the pairs.
        return len(cached.scan(limit=count, budget=PLENTY)[0])

    bare_gets, bare_sets = partial(gets, bare.get), partial(sets, bare.put)
    runs = (
        (partial(gets, cached.get), bare_gets),
        (partial(gets, cold.get), bare_gets),
        (partial(sets, cached.set, cached.finish), bare_sets),
        (partial(sets, cold.set, cold.finish), bare_sets),
        (partial(mixed, cached.get, cached.set, cached.finish), partial(mixed, bare.get, bare.put)),
        (partial(mgets, cached), bare_mgets),
        (partial(mgets, cold), bare_mgets),
        (partial(msets, cached), bare_msets),
        (partial(scan, scan_ours), partial(scan, bare.scan)),
    )
    return dict(zip(CASES, runs))


def make_runs(engine: str, count: int, value: bytes) -> dict[str, Callable[[], float]]:
    """All cases by name, in keys a second. The databases are in the current folder."""
    keys = shuffled(count)
    cached = make_calls(engine, "cached", 128 * MIB)
    cold = make_calls(engine, "cold", 0)
    bare = open_bare(engine, "bare")
    for key in keys:
        for put in (cached.set, cold.set, bare.put):
            put(key, value)
    cached.finish()
    cold.finish()
    for _ in range(2):
        for key in keys:
            # Twice: what is asked for again is what the cache keeps.
            for found in (cached.get(key), cold.get(key)):
                if found is None or found.value != value:
                    raise RuntimeError(f"{key!r} is not there")

    def rate(run: Callable[[], None]) -> float:
        return count / seconds(run)

    runs: dict[str, Callable[[], float]] = {}
    for case, (ours, binding) in make_cases(cached, cold, bare, keys, value).items():
        runs[f"{case}/{OURS}"], runs[f"{case}/{BARE}"] = partial(rate, ours), partial(rate, binding)
    return runs


def main(engine: str, keys: str, value_bytes: str) -> None:
    """Measure for the process that started this one."""
    serve(lambda: make_runs(engine, int(keys), b"x" * int(value_bytes)))


if __name__ == "__main__":
    main(*sys.argv[1:])
