"""Writes that depend on what is there, beside plain ones: 4 connections with 16 calls at once, random keys."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Callable

from kvtwisted.commands.conditions import etag_of
from kvtwisted.rpc.generated import keyvalue_pb2 as kv

from .. import client, messages
from ..messages import COUNTED, START, Messages
from ..plan import Group, Plan, start_servers
from ..rounds import Probe
from .grpc import MANY, TRANSPORTS, Load

#: Checks, and Sets, of a transaction.
CHANGES = 10
#: The forms of all cases; ratios are to the second, which a Transact has not.
DECIDING, PLAIN = "4 x 16", "a plain Set"


def _numbers(plan: Plan) -> Messages:
    return messages.put(plan.keys, START, COUNTED)


def _same(plan: Plan) -> Messages:
    return messages.put(plan.keys, plan.value)


Maker = Callable[[Plan], Messages]
#: What is measured, and the Set that is nearest to it.
CASES: dict[str, tuple[Maker, Maker]] = {
    "Set if present": (lambda plan: messages.put_if(plan.keys, plan.value, kv.Condition(present=True)), _same),
    "Set if the value is": (
        lambda plan: messages.put_if(plan.keys, plan.value, kv.Condition(value=plan.value.encode())),
        _same,
    ),
    "Set if the etag is": (
        lambda plan: messages.put_if(plan.keys, plan.value, kv.Condition(etag=etag_of(plan.value.encode()))),
        _same,
    ),
    "Increment": (lambda plan: messages.increment(plan.keys), _numbers),
    "Touch": (lambda plan: messages.touch(plan.keys), _numbers),
}
TRANSACTION = f"Transact of {CHANGES} checks and {CHANGES} Sets"


def open_conditions(stack: ExitStack, plan: Plan, cases: Sequence[str]) -> list[Probe]:
    """A server for each tree, which all share."""
    probes: list[Probe] = []
    for (_, tree), server in start_servers(stack, plan, "conditions", {"native": TRANSPORTS["native"]}).items():
        server.fill(plan.keys, lambda _: START, COUNTED)
        for case in cases:
            if case == TRANSACTION:
                load = Load(server, messages.transact(plan.keys, plan.value, CHANGES), MANY, plan)
                probes.append(Probe("conditions", case, DECIDING, tree, load.warm_up, load.run, "calls/s"))
                continue
            for form, make in zip((DECIDING, PLAIN), CASES[case]):
                load = Load(server, make(plan), MANY, plan)
                against = PLAIN if form == DECIDING else None
                probes.append(Probe("conditions", case, form, tree, load.warm_up, load.run, "calls/s", against=against))
    return probes


GROUP = Group("conditions", dict.fromkeys([TRANSACTION, *CASES], client.PROGRAM), open_conditions)
