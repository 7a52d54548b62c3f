"""The process behind `layers`: a database layer by layer, and a run for each layer of each call."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from typing import Any, Callable, NamedTuple

from kvtwisted.backends.local.cache import HotCache
from kvtwisted.backends.local.engines import open_engine
from kvtwisted.backends.local.store import Store
from kvtwisted.backends.local.writer import Writer
from kvtwisted.commands.set import Set
from kvtwisted.core.clock import Clock
from kvtwisted.core.options import MIB, EngineOptions

from ..bare import open_bare
from ..calls import Calls
from ..worker import seconds, serve
from .layers import CALLS
from .service import BATCH
from .service_worker import PLENTY, shuffled

#: Keys of one short run, and short runs of a layer in a round.
_RUN, _SHORT_RUNS = 2000, 12


class Layers(NamedTuple):
    """A database, layer by layer."""

    engine: Any
    writer: Writer
    store: Store
    calls: Calls


def make_layers(engine: str, folder: str, cache_bytes: int) -> Layers:
    """What the server makes of an engine, with default options."""
    opened = open_engine(engine, folder, EngineOptions())
    writer = Writer(opened, HotCache(cache_bytes))
    store = Store(opened, writer, Clock())
    return Layers(opened, writer, store, Calls(store))


def each(things: Sequence[Any], call: Callable[[Any], object]) -> None:
    """Call with each key or batch."""
    for thing in things:
        call(thing)


def each_with(keys: Sequence[bytes], value: bytes, call: Callable[[bytes, bytes], object]) -> None:
    """Call with each key and the value."""
    for key in keys:
        call(key, value)


def make_steps(
    run: Sequence[bytes], value: bytes, bare: Any, cold: Layers, cached: Layers
) -> dict[str, Sequence[Callable[[], None]]]:
    """A run for each layer of each call, in the order of CALLS."""
    batches = [list(run[first : first + BATCH]) for first in range(0, len(run), BATCH)]
    pairs = [dict.fromkeys(batch, value) for batch in batches]
    changes = [[("default", key, value) for key in batch] for batch in batches]

    def gets(*calls: Callable[[bytes], object]) -> list[Callable[[], None]]:
        return [partial(each, run, call) for call in calls]

    def sets(*calls: Callable[[bytes, bytes], object]) -> list[Callable[[], None]]:
        return [partial(each_with, run, value, call) for call in calls]

    binding = cold.engine._db
    return {
        "Get, cache off": gets(
            lambda key: None, binding.get, cold.engine.get, cold.store.get, cold.calls.get
        ),
        "Get, hot": gets(lambda key: None, cached.store.hot, cached.calls.get),
        "Set": sets(
            lambda key, value: None, binding.put,
            lambda key, value: cold.engine.write([("default", key, value)]),
            lambda key, value: cold.writer.write([(key, value, 0)]),
            lambda key, value: cold.writer.write_all([cold.store.prepare(Set(key, value))]),
            cold.calls.set, cached.calls.set,
        ),
        "MGet, a key": [
            partial(each, batches, bare.multi_get),
            partial(each, batches, lambda batch: cold.engine.multi_get(batch[:64], PLENTY)),
            partial(each, batches, lambda batch: cold.calls.mget(batch, budget=PLENTY)),
            partial(each, batches, lambda batch: cached.calls.mget(batch, budget=PLENTY)),
        ],
        "MSet, a key": [
            partial(each, batches, lambda batch: bare.multi_put(batch, value)),
            partial(each, changes, cold.engine.write),
            partial(each, pairs, cold.calls.mset),
            partial(each, pairs, cached.calls.mset),
        ],
    }  # fmt: skip


def make_runs(engine: str, count: int, value: bytes) -> dict[str, Callable[[], float]]:
    """All layers of all calls by name, in nanoseconds a key. The databases are in the current folder."""
    keys = shuffled(count)
    cold, cached = make_layers(engine, "cold", 0), make_layers(engine, "cached", 128 * MIB)
    bare = open_bare(engine, "bare")
    for key in keys:
        for put in (cold.calls.set, cached.calls.set, bare.put):
            put(key, value)
        cached.calls.get(key)
    run = keys[:_RUN]

    def fastest(step: Callable[[], None]) -> float:
        return min(seconds(step) for _ in range(_SHORT_RUNS)) / len(run) * 1e9

    steps = make_steps(run, value, bare, cold, cached)
    return {
        f"{call}/{layer}": partial(fastest, step) for call in CALLS for layer, step in zip(CALLS[call], steps[call])
    }


def main(engine: str, keys: str, value_bytes: str) -> None:
    """Measure for the process that started this one."""
    serve(lambda: make_runs(engine, int(keys), b"x" * int(value_bytes)))


if __name__ == "__main__":
    main(*sys.argv[1:])
