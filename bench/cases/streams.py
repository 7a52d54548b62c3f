"""All pairs of a server by ScanStream, beside pages of ScanKeyValues and the bare binding's iterator.

One call at a time on one connection: who pages has to wait for the cursor of the page before.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial

from kvtwisted.rpc.generated import keyvalue_pb2 as kv

from .. import client, messages
from ..plan import Group, Plan, each_tree, start_server
from ..rounds import Probe, Sample
from ..server import name
from ..trees import Tree
from ..worker import Worker
from .grpc import ONE, TRANSPORTS, Load
from .service import BARE

#: Keys in a page.
PAGE = 1000
#: The forms; the ratio of the first is to the second, or to the third.
STREAM, PAGES, ITERATOR = "ScanStream", f"pages of {PAGE:,}", "the bare binding"
CASES = {"all pairs": PAGES, "all pairs, to the binding": ITERATOR}
_ITERATED = f"Scan of key-values/{BARE}"


def streamed(load: Load, entry_bytes: int) -> Sample:
    """Pairs a second by the bytes that came: whole streams are too few in a turn to be counted."""
    outcome = load.load(load.seconds)
    return outcome.sample()._replace(figure=outcome.received / entry_bytes, p50=None, p99=None, server=None)


def paged(load: Load) -> Sample:
    """Pairs a second."""
    sample = load.run()
    return sample._replace(figure=sample.figure * PAGE, server=None)


def open_streams(stack: ExitStack, plan: Plan, cases: Sequence[str]) -> list[Probe]:
    """A server for each tree, and a process with the bare binding."""
    probes: list[Probe] = []
    keys = max(2, -(-plan.keys // PAGE)) * PAGE
    one = kv.ScanKeyValuesResponse(entries=[kv.Entry(key=name(0), data=plan.value.encode())])

    def add(tree: Tree) -> None:
        server = start_server(stack, plan, tree, "streams", TRANSPORTS["native"])
        server.fill(keys, lambda _: plan.value)
        stream = Load(server, messages.scan_stream(), ONE, plan)
        pages = Load(server, messages.pages(keys, plan.value, PAGE), ONE, plan)
        worker = Worker(
            tree, "bench.cases.service_worker", plan.folder / f"streams-bare-{tree.name}", plan.engine, str(keys),
            str(plan.value_bytes),
        )  # fmt: skip
        stack.enter_context(worker)
        iterate = partial(worker.sample, _ITERATED)
        for case in cases:
            other = CASES[case]
            warm_up, run = (pages.warm_up, partial(paged, pages)) if other == PAGES else (iterate, iterate)
            probes.append(
                Probe(
                    "streams", case, STREAM, tree.name, stream.warm_up, partial(streamed, stream, one.ByteSize()),
                    "keys/s", against=other,
                )
            )  # fmt: skip
            probes.append(Probe("streams", case, other, tree.name, warm_up, run, "keys/s"))

    each_tree(plan, "streams", add)
    return probes


GROUP = Group("streams", dict.fromkeys(CASES, client.PROGRAM), open_streams)
