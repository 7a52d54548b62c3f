"""Many Gets or Sets on one stream, beside the same as calls of their own, in the same rounds; random keys."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from .. import client, messages
from ..client import Shape
from ..plan import Group, Plan, start_servers
from ..rounds import Probe
from .grpc import MANY, TRANSPORTS, Load

#: The forms of all cases; ratios are to the last. A stream has so many operations unanswered.
IN_FLIGHT = 256
PIPELINES = {"pipeline, 1 stream": Shape(1, IN_FLIGHT), "pipeline, 4 streams": Shape(4, IN_FLIGHT)}
CALLS = "calls, 4 x 16"
CASES = {"Get": (messages.pipeline_get, messages.get), "Set": (messages.pipeline_put, messages.put)}


def open_pipeline(stack: ExitStack, plan: Plan, cases: Sequence[str]) -> list[Probe]:
    """A server for each tree, which all share."""
    probes: list[Probe] = []
    for (_, tree), server in start_servers(stack, plan, "pipeline", {"native": TRANSPORTS["native"]}).items():
        for case in cases:
            pipelined, single = (make(plan.keys, plan.value) for make in CASES[case])
            loads = {form: Load(server, pipelined, shape, plan) for form, shape in PIPELINES.items()}
            loads[CALLS] = Load(server, single, MANY, plan)
            for form, load in loads.items():
                against = None if form == CALLS else CALLS
                probes.append(
                    Probe("pipeline", case, form, tree, load.warm_up, load.run, "operations/s", against=against)
                )
    return probes


GROUP = Group("pipeline", dict.fromkeys(CASES, client.PROGRAM), open_pipeline)
