"""gRPC under load, on both transports: a call for each of many messages on random keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from itertools import count
from typing import Callable, NamedTuple

import grpc
from google.protobuf.message import Message

from .. import client, messages
from ..client import Shape
from ..load import LoadError, Outcome
from ..messages import Messages
from ..plan import Group, Plan, start_servers
from ..rounds import Probe, Sample
from ..server import PATIENCE, Server

#: The forms of all cases, with the option that makes a server so; ratios are to the second.
TRANSPORTS = {"native": ("--grpc-transport", "native"), "threaded": ("--grpc-transport", "threaded")}
_SYNC = ("--rocksdb-options-sync", "true")
#: So many connections with so many calls at once on each.
MANY, ONE = Shape(4, 16), Shape(1, 1)


_numbers = count()


class Case(NamedTuple):
    """What makes the messages, how they are sent, and whether writes wait for the disk."""

    make: Callable[[int, str], Messages]
    shape: Shape
    sync: bool = False


CASES = {
    "Get, 4 x 16": Case(messages.get, MANY),
    "Set, 4 x 16": Case(messages.put, MANY),
    "Get, one at a time": Case(messages.get, ONE),
    "Set, one at a time": Case(messages.put, ONE),
    "Set with sync, 4 x 16": Case(messages.put, MANY, sync=True),
}


def check(address: str, sent: Messages, headers: Mapping[str, str]) -> None:
    """Send the first message with another client. Raises LoadError, or grpc.RpcError, unless its own answer comes."""
    with grpc.insecure_channel(address) as channel:
        kinds = {(False, False): "unary_unary", (False, True): "unary_stream", (True, False): "stream_stream"}
        kind = getattr(channel, kinds[sent.pipeline, sent.streaming])
        method = kind(sent.path, bytes, type(sent.answer).FromString)
        message = iter(sent.encoded[:1]) if sent.pipeline else sent.encoded[0]
        answered = method(message, timeout=PATIENCE, metadata=tuple(headers.items()))
        # Of many answers to one call the first.
        answers = [next(answered)] if sent.streaming else list(answered) if sent.pipeline else [answered]
    if [_without(answer, sent.varying) for answer in answers] != [_without(sent.answer, sent.varying)]:
        raise LoadError(f"{sent.path} answers {answers} and not {sent.answer}")


def _without(answer: Message, fields: Sequence[str]) -> Message:
    known = type(answer)()
    known.CopyFrom(answer)
    for field in fields:
        known.ClearField(field)
    return known


class Load:
    """Messages that are sent to a server again and again: what a probe of gRPC runs."""

    def __init__(self, server: Server, sent: Messages, shape: Shape, plan: Plan) -> None:
        self._server = server
        self._sent = sent
        self._shape = shape
        #: Of a turn.
        self.seconds = plan.seconds
        self._program = client.build(plan.folder)
        file = client.write(server.folder / f"{next(_numbers)}.messages", sent.encoded)
        self._call = client.Call(sent.path, file, sent.least, sent.most, sent.pipeline, sent.streaming)

    def warm_up(self) -> None:
        """Check the answer; then load the server for half a turn."""
        check(self._server.grpc, self._sent, self._server.headers)
        self.load(self.seconds / 2)

    def run(self) -> Sample:
        """One turn."""
        return self.load(self.seconds).sample()

    def load(self, seconds: float) -> Outcome:
        """Raises LoadError unless both ends agree that all went well."""
        with self._server.served(self._sent.operation) as served:
            outcome = self.play(seconds)
        if served.keys < outcome.requests * self._sent.counted:
            raise LoadError(f"the client saw {outcome.requests} answers, but the server counted {served.keys} keys")
        return outcome._replace(server=served.seconds / outcome.requests * 1e6 if outcome.requests else None)

    def play(self, seconds: float) -> Outcome:
        """The same by what the client sees alone."""
        return client.run(self._program, self._server.grpc, self._call, self._shape, seconds, self._server.headers)


def probe(group: str, case: str, key: tuple[str, str], load: Load) -> Probe:
    """The probe of a load; `key` is the transport and the tree."""
    form, tree = key
    against = "threaded" if form == "native" else None
    return Probe(group, case, form, tree, load.warm_up, load.run, "calls/s", against=against)


def open_grpc(stack: ExitStack, plan: Plan, cases: Sequence[str]) -> list[Probe]:
    """A server for each transport, tree and kind of write that the cases need."""
    probes = []
    for sync in (False, True):
        chosen = [case for case in cases if CASES[case].sync is sync]
        if not chosen:
            continue
        forms = {form: (*options, *(_SYNC if sync else ())) for form, options in TRANSPORTS.items()}
        servers = start_servers(stack, plan, f"grpc{'-sync' * sync}", forms)
        for case in chosen:
            sent = CASES[case].make(plan.keys, plan.value)
            loads = {key: Load(server, sent, CASES[case].shape, plan) for key, server in servers.items()}
            probes += [probe("grpc", case, key, load) for key, load in loads.items()]
    return probes


GROUP = Group("grpc", dict.fromkeys(CASES, client.PROGRAM), open_grpc)
