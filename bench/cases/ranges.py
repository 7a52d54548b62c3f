"""How long a small Get waits beside the removal of a range, and beside scans over deleted keys; native gRPC.

One Get each millisecond, on a connection of its own. Before each round the keys are stored again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, Callable

import grpc

from kvtwisted.rpc.generated import keyvalue_pb2 as kv

from .. import client, messages
from ..load import LoadError
from ..plan import Group, Plan, start_servers
from ..rounds import Probe, Sample
from ..server import PATIENCE, SERVICE, Server
from .batches import SMALL
from .deleted import delete
from .grpc import TRANSPORTS, Load

#: Keys that are removed, or read over, for each of the plan's.
TIMES = 10
#: What they begin with.
_PREFIX = "range"
DELETE_RANGE, SCANS = "DeleteRange", "scans over deleted keys"
BESIDE, ALONE = "the longest Get beside it", "the longest Get alone"
FORWARD, REVERSE, QUIET = "Gets beside forward scans", "Gets beside reverse scans", "Gets alone"
SCANNERS = 4


def beside(load: Load, others: Sequence[Callable[[], object]]) -> Sample:
    """The Gets from before the others begin to a second after they have ended. The figure is the longest one's us."""
    failures: list[BaseException] = []
    over = threading.Event()

    def run(other: Callable[[], object]) -> None:
        try:
            other()
        except (LoadError, grpc.RpcError) as error:
            failures.append(error)

    samples: list[Sample] = []

    def get() -> None:
        try:
            while not over.is_set() or not samples:
                outcome = load.load(load.seconds)
                samples.append(Sample(outcome.longest, outcome.p50, outcome.p99, outcome.client))
        except LoadError as error:
            failures.append(error)

    getting = threading.Thread(target=get)
    threads = [threading.Thread(target=run, args=(other,)) for other in others]
    getting.start()
    time.sleep(min(0.2, load.seconds / 4))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    over.set()
    getting.join()
    if failures:
        raise LoadError(str(failures[0]))
    return max(samples, key=lambda sample: sample.figure)


def _call(server: Server, method: str, request: Any, kind: Any) -> Any:
    with grpc.insecure_channel(server.grpc) as channel:
        call = channel.unary_unary(SERVICE + method, type(request).SerializeToString, kind.FromString)
        return call(request, timeout=PATIENCE)


def remove(server: Server, plan: Plan, small: Load) -> Sample:
    """Fill the range, and remove it beside the Gets."""
    number = TIMES * plan.keys
    server.fill(number, lambda _: plan.value, _PREFIX)
    took: list[float] = []

    def delete_range() -> None:
        begun = time.perf_counter()
        answer = _call(server, "DeleteRange", kv.DeleteRangeRequest(prefix=_PREFIX), kv.DeleteRangeResponse)
        took.append(time.perf_counter() - begun)
        if not answer.success or answer.deleted != number:
            raise LoadError(f"DeleteRange of {number} keys answers {answer}")

    sample = beside(small, [delete_range])
    return sample._replace(aside={"ms of the DeleteRange": took[0] * 1000})


def scan(server: Server, plan: Plan, small: Load, reverse: bool) -> Sample:
    """Fill, delete key by key, and scan over them beside the Gets; the figure is the Gets' p99."""
    number = TIMES * plan.keys
    server.fill(number, lambda _: plan.value, _PREFIX)
    delete(server, number, _PREFIX)
    until = time.monotonic() + plan.seconds

    def scanner() -> None:
        while time.monotonic() < until:
            request = kv.ScanRequest(prefix=_PREFIX, limit=1, reverse=reverse)
            page = _call(server, "ScanKeys", request, kv.ScanKeysResponse)
            if page.error or page.keys:
                raise LoadError(f"a scan over deleted keys answers {page}")

    return _p99(beside(small, [scanner] * SCANNERS))


def open_ranges(stack: ExitStack, plan: Plan, cases: Sequence[str]) -> list[Probe]:
    """A server for each tree, which all share."""
    probes: list[Probe] = []

    def add(case: str, form: str, tree: str, load: Load, run: Callable[[], Sample], against: str | None) -> None:
        unit = "us" if case == DELETE_RANGE else "us, p99"
        probes.append(Probe("ranges", case, form, tree, load.warm_up, run, unit, more_is_better=False, against=against))

    for (_, tree), server in start_servers(stack, plan, "ranges", {"native": TRANSPORTS["native"]}).items():
        small = Load(server, messages.get(plan.keys, plan.value), SMALL, plan)
        if DELETE_RANGE in cases:
            add(DELETE_RANGE, BESIDE, tree, small, partial(remove, server, plan, small), ALONE)
            add(DELETE_RANGE, ALONE, tree, small, partial(beside, small, ()), None)
        if SCANS in cases:
            for form, reverse in ((FORWARD, False), (REVERSE, True)):
                add(SCANS, form, tree, small, partial(scan, server, plan, small, reverse), QUIET)
            add(SCANS, QUIET, tree, small, lambda small=small: _p99(beside(small, ())), None)
    return probes


def _p99(sample: Sample) -> Sample:
    assert sample.p99 is not None  # noqa: S101 - a load of gRPC has it
    return sample._replace(figure=sample.p99)


GROUP = Group("ranges", dict.fromkeys((DELETE_RANGE, SCANS), client.PROGRAM), open_ranges)
