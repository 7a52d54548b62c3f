"""Calls that are much work each, 16 at once: batches and pages of 100 keys, and large values; random keys.

Beside each of these loads one small Get in each millisecond, on a connection of its own: what others notice of them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Callable

from .. import client, messages
from ..client import Shape
from ..load import LoadError
from ..messages import Messages
from ..plan import Group, Plan, start_servers
from ..rounds import Probe, Sample
from .cold import random_values
from .grpc import TRANSPORTS, Load

#: Keys in one call, bytes of a large value, and how many of those are stored.
BATCH, LARGE_BYTES, LARGE_KEYS = 100, 64 << 10, 256
#: The forms of all cases: the calls themselves, and the small Get meanwhile; and the Get when there is nothing else.
CALLS, BESIDE, ALONE = "16 calls at once", "a small Get beside them", "a small Get alone"
_SHAPE = Shape(1, 16)
#: One Get each millisecond.
SMALL = Shape(1, 64, every=1000)
#: Seconds in which a load begins and ends, before and after the small Gets.
_MARGIN = 0.2

Cases = Mapping[str, Callable[[Plan], Messages]]
BATCHES: Cases = {
    f"MGet of {BATCH}": lambda plan: messages.mget(plan.keys, plan.value, BATCH),
    f"MSet of {BATCH}": lambda plan: messages.mset(plan.keys, plan.value, BATCH),
    f"ScanKeyValues of {BATCH}": lambda plan: messages.scan(plan.keys, plan.value, BATCH),
}
#: A large value, and what begins the keys that have it.
LARGE_PREFIX = "large"
LARGE_VALUE = random_values(2)[:LARGE_BYTES]
LARGE: Cases = {
    "Get of 64 KiB": lambda _: messages.get(LARGE_KEYS, LARGE_VALUE, LARGE_PREFIX),
    "Set of 64 KiB": lambda _: messages.put(LARGE_KEYS, LARGE_VALUE, LARGE_PREFIX),
}


def small_get(load: Load) -> Sample:
    """How long the small Gets take; the figure is the 99th percentile. The server's time is not theirs alone."""
    sample = load.run()
    assert sample.p99 is not None  # noqa: S101 - a load of gRPC has it
    return sample._replace(figure=sample.p99, server=None)


def beside(calls: Load, small: Load, seconds: float) -> Sample:
    """The small Gets while the calls go on."""
    failures: list[LoadError] = []

    def run() -> None:
        try:
            calls.load(seconds + 2 * _MARGIN)
        except LoadError as error:
            failures.append(error)

    other = threading.Thread(target=run)
    other.start()
    time.sleep(_MARGIN)
    try:
        sample = small_get(small)
    finally:
        other.join()
    if failures:
        raise failures[0]
    return sample


def open_cases(group: str, makers: Cases, stack: ExitStack, plan: Plan, cases: Sequence[str]) -> list[Probe]:
    """A server for each tree, which all share."""
    probes: list[Probe] = []

    def add(case: str, form: str, tree: str, load: Load, run: Callable[[], Sample]) -> None:
        unit = "calls/s" if form == CALLS else "us, p99"
        probes.append(Probe(group, case, form, tree, load.warm_up, run, unit, more_is_better=form == CALLS))

    for (_, tree), server in start_servers(stack, plan, group, {"native": TRANSPORTS["native"]}).items():
        if makers is LARGE:
            server.fill(LARGE_KEYS, lambda _: LARGE_VALUE, LARGE_PREFIX)
        small = Load(server, messages.get(plan.keys, plan.value), SMALL, plan)
        for case in cases:
            load = Load(server, makers[case](plan), _SHAPE, plan)
            add(case, CALLS, tree, load, load.run)
            add(case, BESIDE, tree, small, partial(beside, load, small, plan.seconds))
        add("Get", ALONE, tree, small, partial(small_get, small))
    return probes


GROUP = Group("batches", dict.fromkeys(BATCHES, client.PROGRAM), partial(open_cases, "batches", BATCHES))
LARGE_GROUP = Group("large", dict.fromkeys(LARGE, client.PROGRAM), partial(open_cases, "large", LARGE))
