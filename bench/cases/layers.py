"""What each layer adds to one call, in nanoseconds.

The same keys go through an empty loop, the binding, the engine, the store and the operations, in turn and in short runs
of few keys, so that all they touch is in the processor's caches. A figure is the fastest of the short runs of its
round, since whatever else the machine does can only add to it. A layer's own cost is the difference to the line above.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial

from ..plan import Group, Plan, each_tree
from ..rounds import Probe
from ..trees import Tree
from ..worker import Worker

#: The calls, each with its layers from the innermost outward.
CALLS = {
    "Get, cache off": ("an empty loop", "the binding", "engine", "store", "operations"),
    "Get, hot": ("an empty loop", "the cache's dict", "operations"),
    "Set": ("an empty loop", "the binding", "engine", "writer", "store", "operations", "operations, key in the cache"),
    "MGet, a key": ("the binding, its own options", "engine", "operations", "operations, hot"),
    "MSet, a key": ("the binding, its own options", "engine", "operations", "operations, keys in the cache"),
}


def open_layers(stack: ExitStack, plan: Plan, cases: Sequence[str]) -> list[Probe]:
    """A worker for each tree."""
    probes: list[Probe] = []

    def add(tree: Tree) -> None:
        folder = plan.folder / f"layers-{tree.name}"
        worker = stack.enter_context(
            Worker(tree, "bench.cases.layers_worker", folder, plan.engine, str(plan.keys), str(plan.value_bytes))
        )
        for call in cases:
            for layer in CALLS[call]:
                run = partial(worker.sample, f"{call}/{layer}")
                probes.append(Probe("layers", call, layer, tree.name, run, run, "ns", more_is_better=False))

    each_tree(plan, "layers", add)
    return probes


GROUP = Group("layers", dict.fromkeys(CALLS), open_layers)
