"""What each layer adds to one call, in nanoseconds: `python -m bench.layers`.

The same keys go through the bare binding, the engine, the store and the operations, in turn and in short runs. Each
figure is the fastest of many runs, since whatever else the machine does can only add to it; a layer's own cost is the
difference to the line above it.
"""

from __future__ import annotations

import argparse
import random
import shutil
import tempfile
from collections.abc import Sequence
from typing import Any, Callable, NamedTuple

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

from .bare import open_bare
from .service import BATCH, Nothing, seconds

_PLENTY = 1 << 30
#: Keys of one short run.
_RUN = 2000


class Step(NamedTuple):
    """One layer of one call."""

    call: str
    layer: str
    run: Callable[[], object]


def each(keys: Sequence[bytes], call: Callable[[bytes], object]) -> Callable[[], None]:
    """A run that calls with each key."""

    def run() -> None:
        for key in keys:
            call(key)

    return run


def each_with(keys: Sequence[bytes], value: bytes, call: Callable[[bytes, bytes], object]) -> Callable[[], None]:
    """A run that calls with each key and the value."""

    def run() -> None:
        for key in keys:
            call(key, value)

    return run


def each_batch(batches: Sequence[Any], call: Callable[[Any], object]) -> Callable[[], None]:
    """A run that calls with each batch."""

    def run() -> None:
        for batch in batches:
            call(batch)

    return run


class Layers(NamedTuple):
    """A database, layer by layer."""

    engine: Any
    writer: Writer
    store: Store
    operations: Operations


def make_layers(engine: str, folder: str, cache_bytes: int) -> Layers:
    """What the server makes of an engine, with default options."""
    opened = open_engine(engine, folder, EngineOptions())
    writer = Writer(opened, HotCache(cache_bytes))
    store = Store(opened, writer, Clock(), limits=Limits())
    return Layers(opened, writer, store, Operations(store, Nothing(), Metrics(CollectorRegistry()), Health()))


def make_steps(keys: Sequence[bytes], value: bytes, bare: Any, cold: Layers, cached: Layers) -> list[Step]:
    """All calls, layer by layer."""
    run = keys[:_RUN]
    batches = [list(run[first : first + BATCH]) for first in range(0, len(run), BATCH)]
    pairs = [dict.fromkeys(batch, value) for batch in batches]
    changes = [[("default", key, value) for key in batch] for batch in batches]
    return [
        Step("get, cache off", "an empty loop", each(run, lambda key: None)),
        Step("get, cache off", "the binding, same options", each(run, cold.engine._db.get)),
        Step("get, cache off", "engine", each(run, cold.engine.get)),
        Step("get, cache off", "store", each(run, cold.store.get)),
        Step("get, cache off", "operations", each(run, cold.operations.get)),
        Step("get, hot", "an empty loop", each(run, lambda key: None)),
        Step("get, hot", "the cache's dict", each(run, cached.store.hot)),
        Step("get, hot", "operations", each(run, cached.operations.get)),
        Step("set", "an empty loop", each_with(run, value, lambda key, value: None)),
        Step("set", "the binding, same options", each_with(run, value, cold.engine._db.put)),
        Step("set", "engine", each_with(run, value, cold.engine.put)),
        Step("set", "writer", each_with(run, value, cold.writer.put)),
        Step("set", "store", each_with(run, value, cold.store.set)),
        Step("set", "operations", each_with(run, value, cold.operations.set)),
        Step("set", "operations, key in the cache", each_with(run, value, cached.operations.set)),
        Step("mget, a key", "the binding, its own options", each_batch(batches, bare.multi_get)),
        Step("mget, a key", "engine", each_batch(batches, lambda batch: cold.engine.multi_get(batch[:64], _PLENTY))),
        Step(
            "mget, a key", "operations", each_batch(batches, lambda batch: cold.operations.mget(batch, budget=_PLENTY))
        ),
        Step(
            "mget, a key", "operations, hot", each_batch(batches, lambda b: cached.operations.mget(b, budget=_PLENTY))
        ),
        Step("mset, a key", "the binding, its own options", each_batch(batches, lambda b: bare.multi_put(b, value))),
        Step("mset, a key", "engine", each_batch(changes, cold.engine.write)),
        Step("mset, a key", "operations", each_batch(pairs, cold.operations.mset)),
        Step("mset, a key", "operations, keys in the cache", each_batch(pairs, cached.operations.mset)),
    ]


def measure(steps: Sequence[Step], keys: int, runs: int) -> list[float]:
    """Nanoseconds a key of each step, each run being of so many keys; the fastest of `runs` interleaved runs."""
    fastest = [float("inf")] * len(steps)
    for _ in range(runs):
        for position, step in enumerate(steps):
            fastest[position] = min(fastest[position], seconds(step.run))
    return [taken / keys * 1e9 for taken in fastest]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.layers", description=__doc__)
    parser.add_argument("--engine", default="auto", choices=("auto", "rocksdict", "lbry"))
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--value-bytes", type=int, default=100)
    parser.add_argument("--runs", type=int, default=60)
    chosen = parser.parse_args()
    keys = [b"key%08d" % number for number in range(chosen.keys)]
    random.Random(1).shuffle(keys)
    value = b"x" * chosen.value_bytes
    folder = tempfile.mkdtemp(prefix="kvtwisted-bench-")
    try:
        cold = make_layers(chosen.engine, f"{folder}/cold", 0)
        cached = make_layers(chosen.engine, f"{folder}/cached", 128 * MIB)
        bare = open_bare(chosen.engine, f"{folder}/bare")
        for key in keys:
            for put in (cold.operations.set, cached.operations.set, bare.put):
                put(key, value)
            cached.operations.get(key)
        steps = make_steps(keys, value, bare, cold, cached)
        for step, taken in zip(steps, measure(steps, min(_RUN, chosen.keys), chosen.runs)):
            print(f"{step.call:16}{step.layer:32}{taken:8,.0f} ns")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
