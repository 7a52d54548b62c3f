"""The service layer in one process and one thread, beside the bare binding.

Calls go through the door with metrics on, as every transport's do; Sets in turns of some dozens. One run touches
every key once, in random order.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial

from ..plan import Group, Plan, each_tree
from ..rounds import Probe
from ..trees import Tree
from ..worker import Worker

#: Keys in one MGet or MSet.
BATCH = 100
CASES = (
    "Get, hot",
    "Get, cache off",
    "Set, key in the cache",
    "Set, cache off",
    "Get and Set in turn",
    f"MGet of {BATCH}, hot",
    f"MGet of {BATCH}, cache off",
    f"MSet of {BATCH}",
    "Scan of key-values",
)
OURS, BARE = "kvtwisted", "bare binding"


def open_service(stack: ExitStack, plan: Plan, cases: Sequence[str]) -> list[Probe]:
    """A worker for each tree, with ours and the binding in it."""
    probes: list[Probe] = []

    def add(tree: Tree) -> None:
        folder = plan.folder / f"service-{tree.name}"
        worker = stack.enter_context(
            Worker(tree, "bench.cases.service_worker", folder, plan.engine, str(plan.keys), str(plan.value_bytes))
        )
        for case in cases:
            for form in (OURS, BARE):
                run = partial(worker.sample, f"{case}/{form}")
                against = None if form == BARE else BARE
                probes.append(Probe("service", case, form, tree.name, run, run, "keys/s", against=against))

    each_tree(plan, "service layer", add)
    return probes


GROUP = Group("service", dict.fromkeys(CASES), open_service)
