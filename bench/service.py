"""The service layer in one process and one thread, beside the bare binding: `python -m bench.service`.

Calls go through `core.operations` with metrics on, as every transport's do. Each round runs each case once, ours and
the binding's own in turn, so that a noisy machine hits both; the table gives medians, and the spread between the
slowest and the fastest round.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from statistics import median
from typing import Callable, NamedTuple

from prometheus_client import CollectorRegistry

from kvtwisted.core.cache import HotCache
from kvtwisted.core.clock import Clock
from kvtwisted.core.health import Health
from kvtwisted.core.limits import Limits
from kvtwisted.core.operations import Operations
from kvtwisted.core.options import MIB, EngineOptions
from kvtwisted.core.store import Store
from kvtwisted.core.writer import Writer
from kvtwisted.engines import open_engine
from kvtwisted.metrics import Metrics

from .bare import Bare, open_bare

#: Keys in one MGet or MSet.
BATCH = 100
_PLENTY = 1 << 30


class Case(NamedTuple):
    """One line of the table: what is run, how many keys one run touches, and the rate that issue 3 asks for."""

    name: str
    ours: Callable[[], object]
    bare: Callable[[], object] | None
    keys: int
    wanted: int


class Nothing:
    """Configuration that nobody asks for here."""

    def show(self) -> str:
        """Not asked for."""
        raise NotImplementedError

    def update(self, document: object) -> list[str]:
        """Not asked for."""
        raise NotImplementedError

    update_text = update


def make_operations(engine: str, folder: str, cache_bytes: int) -> Operations:
    """What the server makes of an engine, with default options."""
    opened = open_engine(engine, folder, EngineOptions())
    store = Store(opened, Writer(opened, HotCache(cache_bytes)), Clock(), limits=Limits())
    return Operations(store, Nothing(), Metrics(CollectorRegistry()), Health())


def make_cases(cached: Operations, cold: Operations, bare: Bare, keys: Sequence[bytes], value: bytes) -> list[Case]:
    """All cases, over databases that hold every key."""
    count = len(keys)
    batches = [list(keys[first : first + BATCH]) for first in range(0, count, BATCH)]
    pairs = [dict.fromkeys(batch, value) for batch in batches]

    def gets(get: Callable[[bytes], object]) -> Callable[[], None]:
        def run() -> None:
            for key in keys:
                get(key)

        return run

    def sets(put: Callable[[bytes, bytes], object]) -> Callable[[], None]:
        def run() -> None:
            for key in keys:
                put(key, value)

        return run

    def mixed(get: Callable[[bytes], object], put: Callable[[bytes, bytes], object]) -> Callable[[], None]:
        def run() -> None:
            for first, second in zip(keys[::2], keys[1::2]):
                get(first)
                put(second, value)

        return run

    def mgets(operations: Operations) -> Callable[[], None]:
        def run() -> None:
            for batch in batches:
                operations.mget(batch, budget=_PLENTY)

        return run

    def msets(operations: Operations) -> Callable[[], None]:
        def run() -> None:
            for batch in pairs:
                operations.mset(batch)

        return run

    def bare_mgets() -> None:
        for batch in batches:
            bare.multi_get(batch)

    def bare_msets() -> None:
        for batch in batches:
            bare.multi_put(batch, value)

    def scan() -> None:
        if len(cached.scan(b"", limit=count, budget=_PLENTY).items) != count:
            raise RuntimeError("the scan did not give every key")

    return [
        Case("get, hot", gets(cached.get), gets(bare.get), count, 3_000_000),
        Case("get, cache off", gets(cold.get), gets(bare.get), count, 400_000),
        Case("set", sets(cached.set), sets(bare.put), count, 250_000),
        Case("set, cache off", sets(cold.set), sets(bare.put), count, 0),
        Case("mixed 50/50", mixed(cached.get, cached.set), mixed(bare.get, bare.put), count, 450_000),
        Case(f"mget of {BATCH}, hot", mgets(cached), bare_mgets, count, 900_000),
        Case(f"mget of {BATCH}, cache off", mgets(cold), bare_mgets, count, 0),
        Case(f"mset of {BATCH}", msets(cached), bare_msets, count, 400_000),
        Case("scan of key-values", scan, bare.scan, count, 500_000),
    ]


def seconds(run: Callable[[], object]) -> float:
    """How long one run takes."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


class Line(NamedTuple):
    """A measured case: median rates in keys a second, and slowest over fastest round."""

    name: str
    ours: float
    bare: float
    wanted: int
    spread: float


def measure(cases: Sequence[Case], rounds: int) -> list[Line]:
    """Run all cases `rounds` times, interleaved."""
    ours: dict[str, list[float]] = {case.name: [] for case in cases}
    bare: dict[str, list[float]] = {case.name: [] for case in cases}
    for _ in range(rounds):
        for case in cases:
            ours[case.name].append(seconds(case.ours))
            if case.bare is not None:
                bare[case.name].append(seconds(case.bare))
    return [
        Line(
            case.name,
            case.keys / median(ours[case.name]),
            case.keys / median(bare[case.name]) if bare[case.name] else 0,
            case.wanted,
            max(ours[case.name]) / min(ours[case.name]),
        )
        for case in cases
    ]


def table(lines: Sequence[Line]) -> str:
    """The lines for people."""
    rows = [f"{'keys a second':26}{'ours':>12}{'bare':>12}{'ours/bare':>11}{'wanted':>12}{'spread':>9}"]
    for line in lines:
        ratio = f"{line.ours / line.bare:.2f}" if line.bare else ""
        wanted = f"{line.wanted:,}" if line.wanted else ""
        rows.append(f"{line.name:26}{line.ours:12,.0f}{line.bare:12,.0f}{ratio:>11}{wanted:>12}{line.spread:8.2f}x")
    return "\n".join(rows)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.service", description=__doc__)
    parser.add_argument("--engine", default="auto", choices=("auto", "rocksdict", "lbry"))
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--value-bytes", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="measure the cases whose name contains this")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    chosen = parser.parse_args()
    keys = [b"key%08d" % number for number in range(chosen.keys)]
    random.Random(1).shuffle(keys)
    value = b"x" * chosen.value_bytes
    folder = tempfile.mkdtemp(prefix="kvtwisted-bench-")
    try:
        cached = make_operations(chosen.engine, f"{folder}/cached", 128 * MIB)
        cold = make_operations(chosen.engine, f"{folder}/cold", 0)
        bare = open_bare(chosen.engine, f"{folder}/bare")
        for key in keys:
            for put in (cached.set, cold.set, bare.put):
                put(key, value)
        for get in (cached.get, cached.get):
            for key in keys:
                get(key)
        cases = [case for case in make_cases(cached, cold, bare, keys, value) if chosen.only in case.name]
        lines = measure(cases, chosen.rounds)
    finally:
        shutil.rmtree(folder)
    if chosen.json:
        json.dump([line._asdict() for line in lines], sys.stdout, indent=1)
    else:
        print(f"{bare.name}, {chosen.keys:,} keys, {chosen.value_bytes}-byte values, median of {chosen.rounds} rounds")
        print(table(lines))


if __name__ == "__main__":
    main()
