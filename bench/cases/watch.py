"""What watchers cost writers, and how many events they are told: Sets on 4 connections of 16 calls, native gRPC.

Each watcher follows all keys, without values, with a stream of its own; so many streams share a connection.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import Callable

from .. import client, messages
from ..client import Shape
from ..load import LoadError, Outcome
from ..plan import Group, Plan, start_servers
from ..rounds import Probe, Sample
from ..server import KEY, PATIENCE, Server
from .grpc import MANY, TRANSPORTS, Load

SETS, EVENTS = "Set, 4 x 16", "fan-out"
#: Watchers by the names of forms; ratios are to the last.
ALONE = "no watcher"
FORMS = {"1 watcher": 1, "100 watchers": 100, "1,000 watchers": 1000, ALONE: 0}
#: Those whose events are counted.
FAN_OUT = 100
CASES = (SETS, EVENTS)
#: Streams on a connection, and seconds in which watchers come and go.
_STREAMS, _MARGIN = 50, 0.5
_OPTIONS = (*TRANSPORTS["native"], "--limits-max-watchers", "2000")


def watched(server: Server, plan: Plan, number: int, load: Callable[[], Sample]) -> tuple[Sample, Outcome | None]:
    """The load beside so many watchers, and what they saw. Raises LoadError when anything fails at either."""
    if not number:
        return load(), None
    connections = -(-number // _STREAMS)
    shape = Shape(connections, number // connections)
    watchers = Load(server, messages.watch(KEY), shape, plan)
    outcomes: list[Outcome] = []
    failures: list[LoadError] = []

    def watch() -> None:
        try:
            outcomes.append(watchers.play(plan.seconds + 2 * _MARGIN))
        except LoadError as error:
            failures.append(error)

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        deadline = time.monotonic() + PATIENCE
        while server.counters()["kv_watchers"] < number and not failures and time.monotonic() < deadline:
            time.sleep(0.01)
        sample = load()
    finally:
        watching.join()
    if failures:
        raise failures[0]
    return sample, outcomes[0]


def sets_beside(server: Server, plan: Plan, number: int, load: Load) -> Sample:
    """Sets a second."""
    return watched(server, plan, number, load.run)[0]


def events(server: Server, plan: Plan, number: int, load: Load) -> Sample:
    """Events a second while Sets came: each has one, which comes as a message of its own."""
    sample, seen = watched(server, plan, number, load.run)
    assert seen is not None  # noqa: S101 - there are watchers
    told = seen.parts * (plan.seconds + 2 * _MARGIN) / plan.seconds
    return Sample(told, client=seen.client, aside={"Sets a second": sample.figure})


def open_watch(stack: ExitStack, plan: Plan, cases: Sequence[str]) -> list[Probe]:
    """A server for each tree, which all share."""
    probes: list[Probe] = []
    for (_, tree), server in start_servers(stack, plan, "watch", {"native": _OPTIONS}).items():
        load = Load(server, messages.put(plan.keys, plan.value), MANY, plan)
        if SETS in cases:
            for form, number in FORMS.items():
                run = partial(sets_beside, server, plan, number, load)
                against = None if form == ALONE else ALONE
                probes.append(Probe("watch", SETS, form, tree, load.warm_up, run, "calls/s", against=against))
        if EVENTS in cases:
            run = partial(events, server, plan, FAN_OUT, load)
            probes.append(Probe("watch", EVENTS, f"{FAN_OUT} watchers", tree, load.warm_up, run, "events/s"))
    return probes


GROUP = Group("watch", dict.fromkeys(CASES, client.PROGRAM), open_watch)
